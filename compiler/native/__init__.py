"""LLVM IR to machine code: targets, objects, loading, the cache, and compiling in several processes."""
