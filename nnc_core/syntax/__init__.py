"""The bitstream above the arithmetic coder: one function per syntax table (clause 6)."""
