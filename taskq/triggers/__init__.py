"""Triggers: pure rules that give fire times. They read no clock and do no I/O."""
