"""Quantization and reconstruction (clause 9)."""
