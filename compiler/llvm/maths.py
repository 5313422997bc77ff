"""Vector mathematics: exp, log, tanh and their kin as polynomials, without libm.

In: a function's name, dtype and lane count. Out: an internal LLVM function, inlined where it is called unless that is
in many places. A scalar is one lane of the same code, so its bits are the same. No fast-math flags; the constants suit
targets with FMA and without, whose results differ in the last place.

Largest error in ULP over all magnitudes, subnormals included (f32: every 997th bit pattern there is; f64: random bit
patterns and the neighbourhoods of 0 and 1); tests/test_llvm_maths.py asserts these bounds:

    function   f32   f64        method
    exp        1     1.1        x = n ln 2 + r (Cody & Waite 1980), e^r = 1 + r + r² q(r), scaled in two steps
    expm1      1.5   1.6        the same: 2^n (e^r - 1) + (2^n - 1)
    log        1     1          x = 2^k m, √½ <= m < √2; f - f²/2 + f³ p(f), f64 in s = f / (2 + f) (Tang 1990)
    log1p      1.5   1.6        log of u = 1 + x with the rounding error of u carried along
    tanh       2.5   2.5        t / (t + 2), t = expm1(2 |x|)
    logistic   2.5   2.5        e / (1 + e) or 1 / (1 + e), e = exp(-|x|): no overflow, no cancellation
    erf        1.5   2          x + x p(x²) near 0; beyond, f32 1 - exp(-P(x)), f64 1 - exp(-x²) Q((x - 3) / (x + 3))
    sin cos    2     2.5        Cody & Waite up to 2^20, Payne & Hanek (1983) beyond: see `trigonometry`
    pow        0.6   1.5        f32 in f64; f64 with log x in two doubles: see `power`
    sqrt       ½     ½          the instruction; rsqrt = 1 / sqrt(x), 2 ULP

NaN, infinities and -0 are as in C99 annex F. Coefficients: minimax (Remez exchange on the relative error of the result,
70 digits), then rounded to the dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import power, trigonometry, uniform
from .instructions import Instructions
from .polynomials import BIAS, LN2_PARTS, MANTISSA, clamp, horner, reduce_exp, scale, split_log
from .text import Externals, Function, symbol, type_text

# e^r = 1 + r + r² q(r), |r| <= ln 2 / 2. Relative errors: 3.6e-9 of e^r; 5.4e-10 and 1.2e-17 of e^r - 1.
EXP_F32 = (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.00836874544620514, 0.0013814540579915047)
EXPM1_F32 = (0.5, 0.1666666716337204, 0.04166645184159279, 0.00833308044821024, 0.0013936515897512436,
             0.0002007378643611446)
EXP_F64 = (0.5, 0.1666666666666667, 0.041666666666652245, 0.00833333333332613, 0.0013888888895613337,
           0.0001984126987484561, 2.4801574517473e-05, 2.755725535969336e-06, 2.7567935820819667e-07,
           2.5105236719514428e-08, 1.768769844969116e-09)  # fmt: skip
# log(1 + f) = f - f²/2 + f³ p(f); 3.2e-9.
LOG_F32 = (0.3333331346511841, -0.25000008940696716, 0.2000211924314499, -0.1666799634695053, 0.14219552278518677,
           -0.1240558847784996, 0.11888160556554794, -0.11675655096769333, 0.06746648997068405)  # fmt: skip
# log(1 + f) = 2s + s z R(z), s = f / (2 + f), z = s²; 1.4e-18.
LOG_F64 = (0.6666666666666734, 0.39999999999416375, 0.28571428742014543, 0.22222198610890925, 0.1818356239933069,
           0.15314098986466138, 0.14795473645710852)  # fmt: skip
# erf(x) = x + x p(x²): |x| <= 0.93, 3.2e-8; |x| <= 1, 2.6e-17.
ERF_F32 = (0.12837915122509003, -0.3761247992515564, 0.11281682550907135, -0.026761719956994057, 0.004985940642654896,
           -0.0005953741492703557)  # fmt: skip
ERF_F64 = (0.12837916709551256, -0.3761263890318352, 0.11283791670944185, -0.02686617064311146, 0.005223977606118426,
           -0.0008548325929311893, 0.00012055293576816174, -1.492471230029015e-05, 1.6447131549126013e-06,
           -1.6206313583187198e-07, 1.3710979620445635e-08, -7.779467009284168e-10)  # fmt: skip
# erf(x) = 1 - exp(-P(x)), 0.91 <= x <= 4.05; 1.8e-9.
ERFC_F32 = (0.00018072691455017775, 1.1277376413345337, 0.6370773911476135, 0.1040239930152893, -0.02227163128554821,
            0.003054474713280797, -0.00019708873878698796)  # fmt: skip
# exp(x²) erfc(x) = Q((x - 3) / (x + 3)), 1 <= x <= 6; 2e-18 of erf(x).
ERFCX_F64 = (0.17900115118138993, -0.32623356004303805, 0.24560380171232557, -0.15011593650041194, 0.0716658372062025,
             -0.024392499256935582, 0.004269136266492681, 0.0007077415934886074, -0.0005971051322597684,
             4.504080625517558e-05, 6.336742496081815e-05, -1.4339093167409359e-05, -1.0048856243109063e-05,
             4.095662914998826e-07, 7.200722263838412e-07)  # fmt: skip

def exp(i: Instructions, x: str) -> str:
    bounds = (-104.0, 89.0) if i.dtype == "f32" else (-746.0, 710.0)
    return exp_between(i, clamp(i, x, *bounds))


def exp_between(i: Instructions, x: str) -> str:
    """For x from where exp is 0 to where it is infinite. 2^n is applied in two halves, so that subnormal results are
    rounded once and nothing overflows early."""
    n, r = reduce_exp(i, x)
    b = i.bits
    half = b.op("ashr", n, b.const(1))
    return i.mul(i.mul(exp_of(i, r), scale(i, half)), scale(i, b.sub(n, half)))


def exp_of(i: Instructions, r: str) -> str:
    """e^r for |r| <= ln 2 / 2."""
    q = EXP_F32 if i.dtype == "f32" else EXP_F64
    return i.add(i.fma(i.mul(r, r), horner(i, r, q), r), i.const(1))


def expm1_of(i: Instructions, r: str) -> str:
    """e^r - 1 for |r| <= ln 2 / 2."""
    return i.fma(i.mul(r, r), horner(i, r, EXPM1_F32 if i.dtype == "f32" else EXP_F64), r)


def expm1(i: Instructions, x: str) -> str:
    """2 (2^(n-1) (e^r - 1) + 2^(n-1) - 1/2): the half keeps n = 128 from overflowing early."""
    bounds = (-25.0, 89.0) if i.dtype == "f32" else (-50.0, 710.0)
    n, r = reduce_exp(i, clamp(i, x, *bounds))
    b = i.bits
    s = scale(i, b.sub(n, b.const(1)))
    value = i.mul(i.fma(s, expm1_of(i, r), i.sub(s, i.const(0.5))), i.const(2))
    return i.select(i.compare("oeq", x, i.const(0)), x, value)  # keeps -0


def log_of(i: Instructions, k: str, f: str) -> str:
    """k ln 2 + log(1 + f)."""
    high, low = LN2_PARTS[i.dtype]
    if i.dtype == "f32":
        square = i.mul(f, f)
        y = i.mul(i.mul(square, f), horner(i, f, LOG_F32))
        y = i.fma(k, i.const(low), y)
        y = i.fma(i.const(-0.5), square, y)
        return i.fma(k, i.const(high), i.add(f, y))
    s = i.div(f, i.add(i.const(2), f))
    z = i.mul(s, s)
    half = i.mul(i.mul(i.const(0.5), f), f)
    tail = i.fma(s, i.add(half, i.mul(z, horner(i, z, LOG_F64))), i.mul(k, i.const(low)))
    return i.fma(k, i.const(high), i.sub(f, i.sub(half, tail)))


def log_edges(i: Instructions, x: str, value: str) -> str:
    """log where x is not a positive finite number: NaN below 0, -inf at 0, x itself at inf and NaN."""
    value = i.select(i.compare("olt", x, i.const(0)), i.const(float("nan")), value)
    value = i.select(i.compare("oeq", x, i.const(0)), i.const(float("-inf")), value)
    return i.select(i.compare("olt", x, i.const(float("inf"))), value, x)


def log(i: Instructions, x: str) -> str:
    """Subnormals are scaled up first."""
    bits = MANTISSA[i.dtype]
    smallest = 2.0 ** (1 - BIAS[i.dtype])
    tiny = i.compare("olt", x, i.const(smallest))
    k, m = split_log(i, i.select(tiny, i.mul(x, i.const(2.0**bits)), x))
    whole = i.bits.convert("sitofp", k, i.dtype)
    whole = i.select(tiny, i.sub(whole, i.const(bits)), whole)
    return log_edges(i, x, log_of(i, whole, i.sub(m, i.const(1))))


def log1p(i: Instructions, x: str) -> str:
    """u = 1 + x rounded, c = the part rounded away; log(1 + x) = log(u) + c / u, and c 2^-k joins f."""
    b, one = i.bits, i.const(1)
    u = i.add(one, x)
    back = i.sub(u, one)
    c = i.add(i.sub(one, i.sub(u, back)), i.sub(x, back))
    k, m = split_log(i, u)
    most = b.const(100)
    shift = b.select(b.compare("slt", k, most), k, most)
    f = i.fma(c, scale(i, b.neg(shift)), i.sub(m, one))
    value = log_of(i, b.convert("sitofp", k, i.dtype), f)
    value = i.select(i.compare("olt", u, i.const(0)), i.const(float("nan")), value)
    value = i.select(i.compare("oeq", u, i.const(0)), i.const(float("-inf")), value)
    value = i.select(i.compare("oeq", x, i.const(float("inf"))), x, value)
    value = i.select(i.compare("uno", x, x), x, value)
    return i.select(i.compare("oeq", x, i.const(0)), x, value)


def tanh(i: Instructions, x: str) -> str:
    high = 10.0 if i.dtype == "f32" else 22.0
    a = i.intrinsic("fabs", x)
    a = i.select(i.compare("ogt", a, i.const(high)), i.const(high), a)
    n, r = reduce_exp(i, i.add(a, a))
    s = scale(i, n)
    t = i.fma(s, expm1_of(i, r), i.sub(s, i.const(1)))
    return i.intrinsic("copysign", i.div(t, i.add(t, i.const(2))), x)


def logistic(i: Instructions, x: str) -> str:
    low = i.const(-104.0 if i.dtype == "f32" else -746.0)
    minus = i.neg(i.intrinsic("fabs", x))
    e = exp_between(i, i.select(i.compare("olt", minus, low), low, minus))
    one = i.const(1)
    top = i.select(i.compare("olt", x, i.const(0)), e, one)
    return i.div(top, i.add(one, e))


def erf(i: Instructions, x: str) -> str:
    a = i.intrinsic("fabs", x)
    z = i.mul(x, x)
    edge, most = (0.92, 4.0) if i.dtype == "f32" else (1.0, 6.0)
    small = ERF_F32 if i.dtype == "f32" else ERF_F64
    near = i.fma(x, horner(i, z, small), x)
    far = i.select(i.compare("ogt", a, i.const(most)), i.const(most), a)
    far = i.select(i.compare("olt", far, i.const(edge)), i.const(edge), far)
    power = i.neg(horner(i, far, ERFC_F32) if i.dtype == "f32" else i.mul(far, far))
    n, r = reduce_exp(i, power)
    tail = i.mul(exp_of(i, r), scale(i, n))
    if i.dtype == "f64":
        u = i.div(i.sub(far, i.const(3)), i.add(far, i.const(3)))
        tail = i.mul(tail, horner(i, u, ERFCX_F64))
    beyond = i.intrinsic("copysign", i.sub(i.const(1), tail), x)
    value = i.select(i.compare("olt", a, i.const(edge)), near, beyond)
    return i.select(i.compare("oeq", x, i.const(0)), x, value)  # keeps -0


RULES: Mapping[str, Callable[..., str]] = {
    "exp": exp, "expm1": expm1, "log": log, "log1p": log1p, "tanh": tanh, "logistic": logistic, "erf": erf,
    "sin": trigonometry.sin, "cos": trigonometry.cos, "pow": power.pow,
    "random": uniform.uniform_of_key, "random.each": uniform.uniform,
}  # fmt: skip


MAX_INLINED = 500  # instructions that inlining one function may add to a module



def name_of(fn: str, dtype: str, lanes: int) -> str:
    return f"nnc.{fn}.{dtype}" + (f"x{lanes}" if lanes > 1 else "")


def operands(i: Instructions, fn: str) -> tuple[str, ...]:
    """The types of a function's operands. `random` has one key for all lanes, `random.each` one for each."""
    match fn:
        case "pow":
            return i.type, i.type
        case "random":
            return "i64", i.of("i64").type
        case "random.each":
            return i.of("i64").type, i.of("i64").type
    return (i.type,)


def call(i: Instructions, fn: str, args: list[str]) -> str:
    """Call a vector function whose result is of `i`'s dtype, and note that the module needs it."""
    i.fn.externals.maths.add((fn, i.dtype, i.lanes))
    name = symbol(name_of(fn, i.dtype, i.lanes), "@")
    given = ", ".join(f"{t} {a}" for t, a in zip(operands(i, fn), args, strict=True))
    return i.pure(f"call {i.type} {name}({given})")


def definitions(externals: Externals, fused: bool, text: str) -> list[str]:
    """The functions that `text`, the module's kernels, calls."""
    angles = {(dtype, lanes) for fn, dtype, lanes in externals.maths if fn in ("sin", "cos")}
    return [*(_definition(*key, externals, fused, text) for key in sorted(externals.maths)),
            *trigonometry.definitions(angles)]


def _definition(name: str, dtype: str, lanes: int, externals: Externals, fused: bool, text: str) -> str:
    """Inlined where that does not make the code much longer: it then costs LLVM seconds and gains little."""
    fn = Function(externals)
    i = Instructions(fn, dtype, lanes, 0, fused)
    types = operands(i, name)
    args = [fn.name(a) for a in ("x", "y")[: len(types)]]
    parameters = ", ".join(f"{t} {a}" for t, a in zip(types, args, strict=True))
    result = RULES[name](i, *args)  # may start new blocks
    fn.block.end = f"ret {i.type} {result}"
    symbol_ = symbol(name_of(name, dtype, lanes), "@")
    copies = text.count(f"{symbol_}(") - 1
    how = "alwaysinline" if fn.size * copies <= MAX_INLINED else "noinline"
    return fn.text(f"define internal {type_text(dtype, lanes)} {symbol_}({parameters}) {how} #0")
