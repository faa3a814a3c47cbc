"""Everyday sounds by synthesis: classes by what makes them, and scenes that combine them."""
