"""LLVM IR text to machine code, and machine code to functions Python can call. The only user of llvmlite.binding.

In: a target, IR text, or an object compiled earlier. Out: an object (ELF bytes, position independent, the same for the
JIT and ahead of time), assembly, callables. The idea: the IR comes vectorised and free of redundancy, so a light
pipeline and codegen level 1 give the speed of O3 at a tenth of the time (measured).

LLVM answers some mistakes by aborting the process, so nothing reaches it unchecked: text is parsed and verified, an
object is loaded only when its undefined symbols are the ones that are allowed, and there is room for what it will do.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import llvmlite
import llvmlite.binding as llvm

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError, UnsupportedError
from . import elf, stack, wasm
from .alone import ALONE
from .room import require
from .target import FUSED, HALF, LEVELS, MASKED, REQUIRED, SINGLE, TARGETS, THREADS, Target, level

INTERRUPTED, HALF_DONE = -1, -2  # codes of a call that was to stop: nothing was changed; variables may be
_BASE_BYTES = 16 << 20  # that LLVM may need to begin, or to load an object
_COMPILE_BYTES, _BYTES_OF_IR = 48 << 20, 32  # to compile: measured 30 MB, and 14 bytes for one of text


def target(name: str = "native") -> Target:
    """`native`, `x86-64-v2`, `x86-64-v3` or `x86-64-v4`. Raises `UnsupportedError` (E0504) for another name, for
    another system or processor than nnc runs on, and where this machine lacks the instructions: running them would end
    the process."""
    require(_BASE_BYTES, "LLVM")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    if not triple.startswith(("x86_64", "aarch64")) or "linux" not in triple:
        where = f"nnc runs on Linux, on x86-64 and aarch64 processors; this Python is for {triple}"
        raise UnsupportedError(
            Diagnostic("E0504", where, (), ("use a container, a virtual machine or, on Windows, WSL",))
        )
    features = llvm.get_host_cpu_features()
    on = {f for f, enabled in features.items() if enabled}
    if name in LEVELS and triple.startswith("x86_64"):
        for needed in list(LEVELS)[: list(LEVELS).index(name) + 1]:
            if missing := sorted(REQUIRED[needed] - on):
                lacks = f"this machine lacks {', '.join(missing)}, which {name} has"
                raise UnsupportedError(Diagnostic("E0504", lacks))
        return level(name, triple)
    if name != "native":
        known = f"known: {', '.join(TARGETS)}"
        raise UnsupportedError(Diagnostic("E0504", f"'{name}' is not a target on this machine", (), (known,)))
    if triple.startswith("aarch64"):
        width = (16, 32, MASKED)
    elif REQUIRED["x86-64-v4"] <= on:
        width = LEVELS["x86-64-v4"]
    elif REQUIRED["x86-64-v3"] <= on:
        width = LEVELS["x86-64-v3"]
    else:
        absent = [names for feature, names in (("fma", FUSED), ("f16c", HALF)) if feature not in on]
        width = (16, 16, MASKED.union(*absent))
    cpu = llvm.get_host_cpu_name()
    single = cpu in SINGLE and "amx-tile" not in on  # a virtual machine may say another name than the processor has
    return Target(name, triple, cpu, features.flatten(), *width, units=1 if single and width[0] == 64 else 2)


def target_alone(name: str) -> Target:
    """One of `alone.ALONE`, or `native`, the best of them for this machine. Raises `UnsupportedError` (E0504)."""
    here = llvm.get_process_triple().partition("-")[0]
    if name == "native":
        width = target().vector_bytes
        name = {64: "x86-64-v4", 32: "x86-64-v3"}.get(width, "x86-64-v2") if here == "x86_64" else here
    if name not in ALONE:
        known = f"known: native, {', '.join(ALONE)}"
        raise UnsupportedError(Diagnostic("E0504", f"'{name}' is not a target that nnc builds for", (), (known,)))
    if name in LEVELS and here != "x86_64":  # it asks the processor in assembly, which LLVM reads for its own machine
        raise UnsupportedError(Diagnostic("E0504", f"'{name}' is built on x86-64 only, and this machine is {here}"))
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    return ALONE[name]


_COMPILING = threading.RLock()


def _before_fork() -> None:
    """A child finds all locks as they are, and nobody who would open them: ours and LLVM's are taken first."""
    _COMPILING.acquire()
    llvm.ffi.lib._lock.__enter__()


def _after_fork() -> None:
    llvm.ffi.lib._lock.__exit__()
    _COMPILING.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


@contextmanager
def compiling() -> Iterator[None]:
    """Around all that compiles: one thread at a time (neither Python nor llvmlite would let two), and a fork waits for
    its end. In it Python and NumPy round to nearest and flush nothing, whatever the process does otherwise: for
    literals that are read and constants that are folded."""
    with _COMPILING:
        if sys.platform != "linux":
            yield
            return
        libc, before = ctypes.CDLL(None), ctypes.create_string_buffer(512)  # more than any fenv_t
        libc.fegetenv(before)
        libc.fesetenv(ctypes.c_void_p(-1))  # FE_DFL_ENV
        try:
            yield
        finally:
            libc.fesetenv(before)


def version() -> str:
    """What made the machine code: part of every cache key."""
    return f"llvmlite {llvmlite.__version__} LLVM {'.'.join(map(str, llvm.llvm_version_info))}"


def _machine(t: Target) -> llvm.TargetMachine:
    """A new machine each time: an engine that is given one destroys it."""
    return llvm.Target.from_triple(t.triple).create_target_machine(
        cpu=t.cpu,
        features=t.features,
        opt=1,
        reloc="pic" if t.position_independent else "static",
        codemodel="small",
        abiname=t.abi,
    )


def _module(ir: str, t: Target, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """Parsed, verified, and through the light pipeline."""
    require(_COMPILE_BYTES + _BYTES_OF_IR * len(ir), "compiling")
    try:
        module = llvm.parse_assembly(ir, llvm.create_context())
        module.triple, module.data_layout = t.triple, str(machine.target_data)
        module.verify()
    except RuntimeError as e:
        raise InternalError(Diagnostic("E0901", f"the generated LLVM IR is wrong: {e}")) from e
    passes = llvm.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_dead_code_elimination_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module


def compile_object(ir: str, t: Target) -> bytes:
    """An object file. Raises `InternalError` (E0901) where the IR is wrong or needs a symbol that is not allowed."""
    machine = _machine(t)
    data: bytes = machine.emit_object(_module(ir, t, machine))
    _check_symbols(data, t.calls)
    return data


def compile_measured(ir: str, t: Target) -> tuple[bytes, dict[str, int]]:
    """An object as `compile_object` makes it, and the bytes of stack that each of its functions needs at most."""
    machine = _machine(t)
    module = _module(ir.replace("attributes #0 = {", f"attributes #0 = {{ {stack.ASKED}", 1), t, machine)
    with stack.frames() as frames:
        data: bytes = machine.emit_object(module)
    _check_symbols(data, t.calls)
    functions = {f.name: _seen(f) for f in module.functions if not f.is_declaration}
    return data, stack.depths(frames(), functions, t)


def _seen(function: llvm.ValueRef) -> stack.Function:
    """What counts of a function for the stack; what LLVM has instructions for does not."""
    found = stack.Function()
    for block in function.blocks:
        for instruction in block.instructions:
            if instruction.opcode == "call":
                *given, callee = instruction.operands
                if callee.value_kind == llvm.ValueKind.function and not callee.name.startswith("llvm."):
                    passed = [a.name for a in given if a.value_kind == llvm.ValueKind.function]
                    found.calls.add((callee.name, tuple(passed)))
            elif instruction.opcode == "alloca":
                found.alignment = max(found.alignment, int(str(instruction).rpartition("align ")[2].split(",")[0]))
    return found


def assembly(ir: str, t: Target) -> str:
    """The assembly of what `compile_object` makes."""
    machine = _machine(t)
    text: str = machine.emit_assembly(_module(ir, t, machine))
    return text


def optimized(ir: str, t: Target) -> str:
    """The IR after the light pipeline, as text."""
    return str(_module(ir, t, _machine(t)))


def symbols(data: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(defined, undefined) global symbols of an object, each sorted."""
    return wasm.symbols(data) if data[:4] == b"\0asm" else elf.symbols(data)


def flash(data: bytes) -> int:
    """Bytes of code and constants of an object."""
    return wasm.size(data) if data[:4] == b"\0asm" else elf.flash(data)


def _check_symbols(data: bytes, allowed: frozenset[str] = THREADS) -> tuple[str, ...]:
    """The defined symbols; an undefined one that is not allowed is our fault, and would crash when called."""
    defined, undefined = symbols(data)
    for name in undefined:
        if name not in allowed:
            raise InternalError(Diagnostic("E0901", f"generated code needs '{name}', which it may not call"))
    return defined


class EpochInput(ctypes.Structure):
    """One input of the step: rows, one or more per example."""

    _fields_ = [
        ("rows", ctypes.c_void_p),
        ("row_bytes", ctypes.c_int64),  # of one example
        ("slot", ctypes.c_int64),
        ("buffer", ctypes.c_void_p),  # for `batch` examples; used when there is an order
    ]


class EpochSum(ctypes.Structure):
    """One scalar result of the step to add up."""

    _fields_ = [
        ("slot", ctypes.c_int64),
        ("dtype", ctypes.c_int64),  # 0 f32, 1 f64, 2 i32, 3 i64, 4 bool
        ("kind", ctypes.c_int64),  # 0: times the number of examples; 1: as it is
    ]


class EpochJob(ctypes.Structure):
    """What `nnc_epoch` works on; see `llvm.epoch`. Everything it points to must outlive the call."""

    _fields_ = [
        ("sizes", ctypes.POINTER(ctypes.c_int64)),  # the entry's size arguments
        ("batch_index", ctypes.c_int64),  # which of them counts examples, -1 for none
        ("slots", ctypes.POINTER(ctypes.c_void_p)),  # the entry's slots
        ("arena", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),  # a `Pool`, its address, or None
        ("position", ctypes.c_int64),  # in and out: the next example
        ("stop", ctypes.c_int64),  # run while position < stop
        ("examples", ctypes.c_int64),  # in all; the last batch ends there
        ("batch", ctypes.c_int64),
        ("order", ctypes.c_void_p),  # i64[examples], or None: as they stand
        ("ninputs", ctypes.c_int64),
        ("inputs", ctypes.POINTER(EpochInput)),
        ("nsums", ctypes.c_int64),
        ("sums", ctypes.POINTER(EpochSum)),
        ("totals", ctypes.POINTER(ctypes.c_double)),  # nsums numbers, added to
        ("steps", ctypes.c_int64),  # out: how many were run
        ("nonfinite", ctypes.c_int64),  # out: the step, of these, that gave a NaN or infinity; -1 for none
    ]


class Library:
    """A loaded object; its functions live as long as it does."""

    def __init__(self, data: bytes):
        require(_BASE_BYTES + 4 * len(data), "loading compiled code")
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.symbols = _check_symbols(data)
        # JITLink lays an object down as one block. The older linker lays each part where there is room, and ends the
        # process where two come to lie further apart than an address reaches (2 GB), beside libraries that take much.
        self._engine = llvm.create_lljit_compiler(None, use_jit_link=True)
        builder = llvm.JITLibraryBuilder().add_object_img(data).add_current_process()
        for name in self.symbols:
            builder.export_symbol(name)
        try:
            self._tracker = builder.link(self._engine, "nnc")
        except RuntimeError as e:
            raise InternalError(Diagnostic("E0901", f"the object cannot be loaded: {e}")) from e

    def address(self, name: str) -> int:
        """Where a function is; raises `KeyError` when there is none of that name."""
        if name not in self.symbols:
            raise KeyError(name)
        address: int = self._tracker[name]
        return address

    def function(self, name: str) -> Callable[..., int]:
        """An entry: `run(sizes, slots, arena, pool) -> code`, pointers as integers or None."""
        run = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 4)(self.address(name))
        run.loaded = self  # type: ignore[attr-defined]  # its code lives as long as it does
        return run


class Support(Library):
    """The loaded object of `llvm.support`: the thread pool and the training loop."""

    def __init__(self, data: bytes):
        super().__init__(data)
        pointer = ctypes.c_void_p
        self.pool_create = ctypes.CFUNCTYPE(pointer, ctypes.c_int32)(self.address("nnc_pool_create"))
        self.pool_destroy = ctypes.CFUNCTYPE(None, pointer)(self.address("nnc_pool_destroy"))
        self.pool_forget = ctypes.CFUNCTYPE(None, pointer)(self.address("nnc_pool_forget"))
        self.pool_words = ctypes.CFUNCTYPE(pointer, pointer)(self.address("nnc_pool_words"))
        self._epoch = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer)(self.address("nnc_epoch"))

    def epoch(self, step: int, job: EpochJob) -> int:
        """Run the step at an address over a job; 0, the code of the check that failed, or INTERRUPTED or HALF_DONE.
        Releases the GIL."""
        return int(self._epoch(step, ctypes.addressof(job)))

    def pool(self, threads: int) -> Pool | None:
        """Up to so many threads for parallel loops, the caller's among them, and what interrupts them; None where there
        is no such thing on this system."""
        address = self.pool_create(threads)
        return Pool(self, address) if address else None


class Pool(ctypes.c_void_p):
    """A thread pool, passed where an entry wants one, of one thread too: by it calls are interrupted. Its
    threads end with it; in a child made by fork there are none, so a child must not pass its parent's pool but make its
    own."""

    def __init__(self, support: Support, address: int):
        super().__init__(address)
        self._support, self._owner = support, os.getpid()
        self._words = (ctypes.c_int32 * 3).from_address(support.pool_words(address))

    def interrupt(self, soft: bool = False, hard: bool = False, half: bool = False) -> None:
        """Make native code that runs with this pool return, or let it run. `soft`: between steps of the training loop,
        INTERRUPTED; `hard`: also in a call or a step that has written no variable yet, INTERRUPTED; `half`: also
        in one that has, HALF_DONE."""
        self._words[:] = [INTERRUPTED * soft, INTERRUPTED * hard, HALF_DONE * half]

    def close(self) -> None:
        """Join the threads; the pool is then null, which means the caller's thread alone."""
        address, self.value = self.value, None
        if address:
            (self._support.pool_destroy if self._owner == os.getpid() else self._support.pool_forget)(address)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:  # `sys` may be gone by then
        if not ending():  # a thread may still be at work; the process takes all of them with it
            self.close()
