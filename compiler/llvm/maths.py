FUNCTIONS = ()
def definitions(declares, fused): return []
