"""Telling others what happened here."""
