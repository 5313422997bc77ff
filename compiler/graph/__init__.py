"""The computation graph: nodes, their operators, text both ways, pictures, the verifier and the interpreter."""
