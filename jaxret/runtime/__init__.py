"""How arrays live on machines: mesh, precision, checkpoints."""
