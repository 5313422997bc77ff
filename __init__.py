"""nnc: a neural-network compiler.

    import nnc
    net = nnc.compile("models/digits_mlp.nn")
    net.fit()

Names are loaded on first use, so `import nnc` costs next to nothing.
"""

from typing import Any

__version__ = "0.2.0"

_HOME = {
    "compile": "runtime.api", "function": "runtime.api", "grad_check": "runtime.check.gradcheck",
    "from_onnx": "runtime.onnx.load", "Model": "runtime.model", "History": "runtime.progress",
    "NncError": "dsl.errors", "SourceError": "dsl.errors", "ArgumentError": "dsl.errors",
    "DataError": "dsl.errors", "ResourceError": "dsl.errors", "NonFiniteError": "dsl.errors",
    "UnsupportedError": "dsl.errors", "from_torch": "runtime.pytorch", "load_ipython_extension": "runtime.magic",
    "log": "runtime.logs", "Observer": "runtime.progress",
}  # fmt: skip

__all__ = sorted(_HOME)
__path__.append(f"{__path__[0]}/runtime/public")  # `nnc.sklearn`


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nnc' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
