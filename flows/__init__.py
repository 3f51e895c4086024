"""One flow a module; its name is the flow's, its body the runbook. ``parts`` is what they share.

``reports`` writes tables for people, ``events`` what automations act on.
"""
