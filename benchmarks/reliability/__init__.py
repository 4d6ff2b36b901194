"""Faults injected into training, from outside where possible, each next to a control without the protection.

    make reliability

Each experiment injects one fault many times and counts what survives. Its control meets the same fault without what
protects a run, and must fail: otherwise the fault was not one. `--short` injects each fault a few times.
"""
