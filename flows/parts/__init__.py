"""What the flows share.

``options`` of a flow, ``clock``, ``batches`` over tasks, ``progress`` as log lines and events, ``outcomes`` of a flow
run, ``hints`` in its messages, and ``approval`` of corrections.
"""
