"""What a compiled program does, read from its text: operations, HBM traffic, collectives, the compiler's own cycles."""
