"""Adapters between exchange formats and the codec (ISO/IEC 15938-17, Annexes A to E)."""
