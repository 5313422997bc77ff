"""LLVM IR text to machine code. The only user of llvmlite.binding.

In: a target, IR text. Out: an object (ELF bytes, position independent, the same for this process and ahead of time),
assembly. The idea: the IR comes vectorised and free of redundancy, so a light pipeline and codegen level 1 give the
speed of O3 at a tenth of the time (measured).

LLVM answers some mistakes by aborting the process, so nothing reaches it unchecked: text is parsed and verified, and
there is room for what it will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import llvmlite
import llvmlite.binding as llvm

from ...dsl.diagnostics import Diagnostic
from ...dsl.errors import InternalError, UnsupportedError
from . import elf, stack, wasm
from .alone import ALONE
from .lock import LOCKS
from .room import require
from .symbols import check_symbols
from .target import FUSED, HALF, LEVELS, MASKED, REQUIRED, SINGLE, TARGETS, Target, level

LOCKS.append(llvm.ffi.lib._lock)
_BASE_BYTES = 16 << 20  # that LLVM may need to begin, or to load an object
_COMPILE_BYTES, _BYTES_OF_IR = 48 << 20, 32  # to compile: measured 30 MB, and 14 bytes for one of text


def _begin() -> None:
    """The machine that this is, as a target and to print for; a process may have its target from the cache."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def target(name: str = "native") -> Target:
    """`native`, `x86-64-v2`, `x86-64-v3` or `x86-64-v4`. Raises `UnsupportedError` (E0504) for another name, for
    another system or processor than nnc runs on, and where this machine lacks the instructions: running them would end
    the process."""
    require(_BASE_BYTES, "LLVM")
    _begin()
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


def version() -> str:
    """What made the machine code: part of every cache key."""
    return f"llvmlite {llvmlite.__version__} LLVM {'.'.join(map(str, llvm.llvm_version_info))}"


def _machine(t: Target, quick: bool = False) -> llvm.TargetMachine:
    """A new machine each time: an engine that is given one destroys it. A `quick` one makes code as it stands; not for
    processors for which LLVM does that with another selector of instructions."""
    _begin()
    return llvm.Target.from_triple(t.triple).create_target_machine(
        cpu=t.cpu,
        features=t.features,
        opt=0 if quick and t.triple.startswith("x86_64") else 1,
        reloc="pic" if t.position_independent else "static",
        codemodel="small",
        abiname=t.abi,
    )


def _module(ir: str, t: Target, machine: llvm.TargetMachine, quick: bool = False) -> llvm.ModuleRef:
    """Parsed, verified, and through the light pipeline, or of that only what must be, to be `quick`."""
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
    if not quick:
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
        passes.add_dead_code_elimination_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module


def compile_object(ir: str, t: Target, quick: bool = False) -> bytes:
    """An object file, made in a third of the time where it is `quick`, for what runs once. Raises `InternalError`
    (E0901) where the IR is wrong or needs a symbol that is not allowed."""
    machine = _machine(t, quick)
    data: bytes = machine.emit_object(_module(ir, t, machine, quick))
    check_symbols(data, t.calls)
    return data


def compile_measured(ir: str, t: Target) -> tuple[bytes, dict[str, int]]:
    """An object as `compile_object` makes it, and the bytes of stack that each of its functions needs at most."""
    machine = _machine(t)
    module = _module(ir.replace("attributes #0 = {", f"attributes #0 = {{ {stack.ASKED}", 1), t, machine)
    with stack.frames() as frames:
        data: bytes = machine.emit_object(module)
    check_symbols(data, t.calls)
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


def flash(data: bytes) -> int:
    """Bytes of code and constants of an object."""
    return wasm.size(data) if data[:4] == b"\0asm" else elf.flash(data)


def linked(data: bytes, names: Sequence[str]) -> Callable[[str], int]:
    """The addresses of an object that LLVM loads: for a system that does not let a file in memory run."""
    require(_BASE_BYTES + 4 * len(data), "loading compiled code")
    _begin()
    # JITLink lays an object down as one block. The older linker lays each part where there is room, and ends the
    # process where two come to lie further apart than an address reaches (2 GB), beside libraries that take much.
    engine = llvm.create_lljit_compiler(None, use_jit_link=True)
    builder = llvm.JITLibraryBuilder().add_object_img(data).add_current_process()
    for name in names:
        builder.export_symbol(name)
    try:
        tracker = builder.link(engine, "nnc")
    except RuntimeError as e:
        raise InternalError(Diagnostic("E0901", f"the object cannot be loaded: {e}")) from e
    kept = engine, tracker  # the code lives as long as both
    return lambda name: int(kept[1][name])
