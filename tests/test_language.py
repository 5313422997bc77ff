"""What the language means: each feature compiled natively and compared with NumPy saying the same thing."""

import traceback

import numpy as np
import pytest

import nnc

rng = np.random.default_rng(0)
X = rng.normal(size=(5, 4)).astype(np.float32)
Y = rng.normal(size=(5, 4)).astype(np.float32)
ROW, COLUMN = np.ogrid[:5, :4]
V = rng.normal(size=4).astype(np.float32)
W = rng.normal(size=(3, 4)).astype(np.float32)
ODD = np.array([3, np.nan, -np.inf, 0, np.inf, -0.5, np.nan], np.float32)
I4 = rng.normal(size=(2, 3, 6, 7)).astype(np.float32)
K4 = rng.normal(size=(5, 3, 3, 2)).astype(np.float32)


def conv(x, w, stride):
    b, _, h, q = x.shape
    k, _, u, v = w.shape
    out = np.zeros((b, k, (h - u) // stride + 1, (q - v) // stride + 1))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            patch = x[:, :, i * stride : i * stride + u, j * stride : j * stride + v]
            out[:, :, i, j] = np.einsum("bcuv,kcuv->bk", patch, w)
    return out


def pool(x):
    return x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2].reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max((3, 5))


FUNCTIONS = {
    "angles": ("fn f(x: f32[N, M], y: f32[N, M]) -> f32[N, M] = atan2(y, x) + atan(x) * asin(tanh(y)) - acos(0.1 * log2(abs(x)))",
               (X, X[::-1].copy()), np.arctan2(X[::-1], X) + np.arctan(X) * np.arcsin(np.tanh(X[::-1])) - np.arccos(0.1 * np.log2(np.abs(X)))),
    "angles known at compile time": ("fn f(x: f32[N]) -> f32[N] = x * (atan2(0, -1) - 2 * acos(0) + log2(8))", (V,), 3 * V),
    "hyperbolic": ("fn f(x: f32[N, M]) -> f32[N, M] = tan(x) + sinh(x) * asinh(x) - cosh(x) + acosh(1 + x^2) + atanh(0.5 * tanh(x)) + erfc(x) + erf(x)",
                   (X,), np.tan(X) + np.sinh(X) * np.arcsinh(X) - np.cosh(X) + np.arccosh(1 + X**2) + np.arctanh(0.5 * np.tanh(X)) + 1),
    "remainders of floats": ("fn f(x: f32[N, M], y: f32[N, M]) -> f32[N, M] = x % y + x % -1 + 7.5 % -2", (X, Y), np.remainder(X, Y) + np.remainder(X, -1) - 0.5),
    "a gradient through a remainder": ("fn f(x: f32[N], y: f32[N]) -> f32[N] = grad(sum(x % y), y)", (X[0], Y[0]), -np.floor(X[0] / Y[0])),
    "powers of whole numbers": ("fn f(k: i32[N]) -> i32[N] = k^3 + 2^abs(k) - k^0 * 7^2 + k^(-1)", (np.array([-2, 0, 1, 5], np.int32),), [-53, -48, -45, 108]),
    "NaN is a number": ("fn f(x: f32[N, M]) -> f32[N] {\n y = where(x > 0.5, nan, x)\n return sum(where(y == y, y, 0), axis = 1)\n}", (X,), np.where(X > 0.5, 0, X).sum(1)),
    "precedence": ("fn f(x: f32[N]) -> f32[N] = -x^2 + 2 * x^3 - 1 / 2 * x", (V,), -(V**2) + 2 * V**3 - 0.5 * V),
    "power is right associative": ("fn f(x: f32[N]) -> f32[N] = x * 2^3^2", (V,), V * 512),
    "pipe": ("fn f(x: f32[N]) -> f32 = x |> abs |> sum", (V,), np.abs(V).sum()),
    "if on a size": ("fn f(x: f32[4]) -> f32[4] = if size(x) == 4 then 2 * x else x", (V,), 2 * V),
    "where": ("fn f(x: f32[N]) -> f32[N] = where(x > 0 and not (x > 1), x, 0)", (V,), np.where((V > 0) & ~(V > 1), V, 0)),
    "size is a number": ("fn f(x: f32[N]) -> f32 = sum(x) / N", (V,), V.mean()),
    "size arithmetic": ("fn f(x: f32[N, M]) -> f32[N * M // 2, 2] = reshape(x, [N * M // 2, 2])", (X,), X.reshape(10, 2)),
    "equal ranks stretch": ("fn f(x: f32[N, M]) -> f32[N, M] = x - mean(x, axis = 1, keep = true)", (X,), X - X.mean(1, keepdims=True)),
    "lower rank matches the trailing axes": ("fn f(x: f32[N, M], v: f32[M]) -> f32[N, M] = x * v", (X, V), X * V),
    "a product over any leading axes": ("fn f(x: f32[A, B, I, J], w: f32[A, B, J, K]) -> f32[A, B, I, K] {\n y[*s, i, k] = sum[j](x[*s, i, j] * w[*s, j, k])\n return y\n}",
                                        (I4, I4.transpose(0, 1, 3, 2).copy()), np.einsum("...ij,...kj->...ik", I4, I4)),
    "a factor without some leading axes": ("fn f(x: f32[A, B, I, J], w: f32[B, K, J]) -> f32[I, A, B, K] {\n y[i, p, *s, k] = sum[j](x[p, *s, i, j] * w[*s, k, j])\n return y\n}",
                                           (I4, I4[0]), np.einsum("pbij,bkj->ipbk", I4, I4[0])),
    "matrix times vector": ("fn f(x: f32[N, M], v: f32[M]) -> f32[N] = x @ v", (X, V), X @ V),
    "vector times matrix": ("fn f(v: f32[N], x: f32[N, M]) -> f32[M] = v @ x", (X[:, 0].copy(), Y), X[:, 0] @ Y),
    "batched product": ("fn f(x: f32[B, N, M], y: f32[B, M, K]) -> f32[B, N, K] = x @ y",
                        (I4[0], I4[0].transpose(0, 2, 1).copy()), I4[0] @ I4[0].transpose(0, 2, 1)),
    "transpose": ("fn f(x: f32[N, M]) -> f32[M, N] = x.T", (X,), X.T),
    "transpose of axes": ("fn f(x: f32[A, B, C, D]) -> f32[C, A, D, B] = transpose(x, [2, 0, 3, 1])", (I4,), I4.transpose(2, 0, 3, 1)),
    "slices": ("fn f(x: f32[5, 4]) -> f32[2, 2] = x[1:5:2, -3:3]", (X,), X[1:5:2, -3:3]),
    "an index drops its axis": ("fn f(x: f32[5, 4]) -> f32[5] = x[:, -1]", (X,), X[:, -1]),
    "an integer tensor gathers": ("fn f(x: f32[5, 4], i: i32[K]) -> f32[K, 4] = x[i]", (X, np.array([4, 0, 4], np.int32)), X[[4, 0, 4]]),
    "gather along an axis": ("fn f(x: f32[5, 4], i: i32[K]) -> f32[5, K] = gather(x, i, axis = 1)", (X, np.array([3, 1], np.int32)), X[:, [3, 1]]),
    "concat and stack": ("fn f(x: f32[N, M], y: f32[N, M]) -> f32[2, N, 2 * M] = stack([concat([x, y], axis = 1), concat([y, x], axis = 1)])",
                         (X, Y), np.stack([np.concatenate([X, Y], 1), np.concatenate([Y, X], 1)])),
    "split": ("fn f(x: f32[5, 4]) -> f32[5, 2] {\n (a, b) = split(x, 2, axis = 1)\n return a - b\n}", (X,), X[:, :2] - X[:, 2:]),
    "pad and flip": ("fn f(x: f32[5, 4]) -> f32[6, 7] = flip(pad(x, [[1, 0], [1, 2]], value = 7), axis = [0, 1])",
                     (X,), np.pad(X, [(1, 0), (1, 2)], constant_values=7)[::-1, ::-1]),
    "flatten": ("fn f(x: f32[A, B, C, D]) -> f32[A, B * C * D] = flatten(x)", (I4,), I4.reshape(2, -1)),
    "expand and squeeze": ("fn f(x: f32[N, M]) -> f32[N, M] = squeeze(expand(x, 1), 1)", (X,), X),
    "of nothing and a value": ("fn f(x: f32[N, M]) -> f32[M] = max(x[:0], axis = 0, initial = 0.5)", (X,), np.full(4, 0.5)),
    "softmax of nothing": ("fn f(x: f32[N]) -> f32[N] = softmax(x) + log_softmax(x) + logsumexp(x)", (V[:0],), V[:0]),
    "a result that is one bool": ("fn f(x: f32[N]) -> bool = any(x > 1)", (V,), (V > 1).any()),
    "one bool of many": ("fn f(x: bool[N]) -> bool { return x[-1] }", (V > 0,), V[-1] > 0),
    "a bool of a function": ("fn f(x: f32[N]) -> f32[N] = where(late(x), x, -x)\nfn late(x: f32[N]) -> bool = x[-1] > 0", (V,), V * np.sign(V[-1])),
    "a long sum": ("fn f(x: f32[N]) -> f32[N] = x" + " + x - 2 * x" * 300, (V,), -299 * V),
    "a long sum of indexed values": ("fn f(x: f32[N]) -> f32[N] {\n y[i] = x[i]" + " + x[i + 0 + 0]" * 300 + "\n return y\n}", (V,), 301 * V),
    "a deep call": ("fn f(x: f32[N]) -> f32[N] = " + "abs(" * 190 + "x" + ")" * 190, (V,), np.abs(V)),
    "many branches": ("fn f(x: f32[N]) -> f32[N] {\n if false { y = x }" + " else if false { y = x }" * 300
                      + " else { y = 2 * x }\n return " + "if false then x else " * 300 + "y\n}", (V,), 2 * V),
    "argmax is the first of equals": ("fn f(x: f32[N, M]) -> i32[N] = argmax(x)", (np.round(X),), np.round(X).argmax(1)),
    "the mean of a bool is a fraction": ("fn f(x: f32[N]) -> f32 = mean(x > 0)", (V,), (V > 0).mean()),
    "reductions over several axes": ("fn f(x: f32[A, B, C, D]) -> f32[B, D] = max(x, axis = [0, 2])", (I4,), I4.max((0, 2))),
    "variance": ("fn f(x: f32[N, M]) -> f32[M] = variance(x, axis = 0)", (X,), X.var(0)),
    "norm": ("fn f(x: f32[N, M]) -> f32 = norm(x)", (X,), np.linalg.norm(X)),
    "cumulative sum": ("fn f(x: f32[N, M]) -> f32[N, M] = cumsum(x, axis = 0)", (X,), X.cumsum(0)),
    "sort": ("fn f(x: f32[N, M]) -> f32[N, M] = sort(x)", (np.round(X),), np.sort(np.round(X))),
    "sort with NaN and infinity": ("fn f(x: f32[N]) -> f32[N] = sort(x)", (ODD,), np.sort(ODD)),
    "top k": ("fn f(x: f32[N, M]) -> f32[N, 2] {\n (v, i) = top_k(x, 2)\n return v\n}", (X,), np.sort(X)[:, :-3:-1]),
    "top k positions": ("fn f(x: f32[N, M]) -> i32[N, 2] {\n (v, i) = top_k(x, 2)\n return i\n}", (X,), np.argsort(-X)[:, :2]),
    "the gradient of a sort": ("fn f(x: f32[N]) -> f32[N] = grad(sum(sort(x) * [1.0, 2.0, 3.0, 4.0]), x)", (V,), 1 + np.argsort(np.argsort(V))),
    "a bool result": ("fn f(x: f32[N]) -> bool[N] = x > 0", (V,), V > 0),
    "a bool argument": ("fn f(m: bool[N], x: f32[N]) -> f32[N] = g(m, x)\nfn g(m: bool[N], x: f32[N]) = where(m, x, 0)", (V > 0, V), np.maximum(V, 0)),
    "scatter": ("fn f(x: f32[5, 4], i: i32[5]) -> f32[3, 4] = scatter(x, i, 3)", (X, np.array([2, 0, 2, 2, 0], np.int32)), np.stack([X[1] + X[4], 0 * X[0], X[0] + X[2] + X[3]])),
    "scatter by product": ('fn f(x: f32[5, 4], i: i32[5]) -> f32[3, 4] = scatter(x, i, 3, by = "mul")', (X, np.array([2, 0, 2, 2, 0], np.int32)), np.stack([X[1] * X[4], 1 + 0 * X[0], X[0] * X[2] * X[3]])),
    "the slope of a scatter by product": (
        'fn f(x: f32[N], i: i32[N]) -> f32[N] = grad(sum(scatter(x, i, 4, by = "mul") * [1.0, 2.0, 3.0, 4.0]), x)',
        (np.float32([5, 0, 3, 0, 2, 0, 7]), np.int32([2, 0, 2, 1, 1, 1, 3])), [9, 1, 15, 0, 0, 0, 4]),
    "a single part is a part": ("fn f(x: f32[5, 4]) -> f32[5, 4] = split(x, 1, axis = 1)[0]", (X,), X),
    "a number without a point that is spread": ("fn f(x: f32[5, 4]) = broadcast(3, [2])", (X,), np.int32([3, 3])),
    "axes that stand for nothing": (
        "fn f(x: f32[N]) = g(x)\nfn g(x: f32[B, *s]) -> f32[B, *s] {\n"
        " m = mean[b, *s](x[b, *s])\n y[b, *s] = x[b, *s] - m\n return y\n}",
        (X[0],), X[0] - X[0].mean(),
    ),
    "scatter is the adjoint of gather": ("fn f(x: f32[5, 4]) -> f32[5, 4] {\n z = broadcast(0.0, [5, 4])\n return scatter(x[0:3], [4, 1, 4], 5) - grad(sum(gather(z, [4, 1, 4]) * x[0:3]), z)\n}", (X,), 0 * X),
    "bits": (
        "fn f(i: i32[N], n: i32[N]) -> i32[N] = bit_xor(bit_or(bit_and(i, 12), 3), bit_not(shift_left(i, n))) + shift_right(i, n)",
        (np.int32([5, -7, 2**31 - 1, -(2**31)]), np.int32([3, 33, -1, 31])),
        np.int32([(5 & 12 | 3) ^ ~40, (-7 & 12 | 3) ^ ~0, 15 ^ ~0, 3 ^ ~0]) + np.int32([0, -1, 0, -1])),
    "bits of numbers that are known": ("fn f(x: f32[N]) -> i32[shift_left(1, 2)] = iota(bit_and(7, 4)) * bit_not(-2)", (V,), [0, 1, 2, 3]),
    "the last of equals": ("fn f(x: f32[N, M]) -> i32[N] = M - 1 - argmax(flip(x, 1))", (np.round(X),), X.shape[1] - 1 - np.round(X)[:, ::-1].argmax(1)),
    "one hot": ("fn f(i: i32[N]) -> f32[N, 4] = one_hot(i, 4)", (np.array([3, 0, 1], np.int32),), np.eye(4)[[3, 0, 1]]),
    "iota and eye": ("fn f(x: f32[N]) -> f32[N] = cast(iota(N), f32) * x + sum(eye(N), axis = 0)", (V,), np.arange(4) * V + 1),
    "cast saturates": ("fn f(x: f32[N]) -> i32[N] = cast(x * 1e20, i32)", (V,), np.where(V > 0, 2**31 - 1, -(2**31))),
    "size floor division": ("fn f(x: f32[N, 4]) -> f32 = cast((N + 1) // 2 % 3, f32)", (X,), 0.0),
    "index notation: matrix product": ("fn f(x: f32[N, M], w: f32[K, M]) -> f32[N, K] {\n y[n, k] = sum[m](x[n, m] * w[k, m])\n return y\n}", (X, W), X @ W.T),
    "index notation: pointwise, any order": ("fn f(x: f32[N, M], v: f32[M]) -> f32[M, N] {\n y[m, n] = exp(x[n, m]) - v[m]\n return y\n}", (X, V), (np.exp(X) - V).T),
    "index notation: further axes": (
        "fn f(x: f32[A, B, C, D]) -> f32[B] = g(x)\nfn g(x: f32[B, C, *s]) -> f32[C] {\n m[c] = mean[b, *s](x[b, c, *s])\n return m\n}",
        (I4,), I4.mean((0, 2, 3))),
    "index notation: a diagonal": ("fn f(x: f32[4, 4]) -> f32 = sum[i](x[i, i])", (X[:4],), np.trace(X[:4])),
    "index notation: no axes on either side": ("fn f(x: f32[N, M], s: f32[]) -> f32 {\n y[] = s[] + sum[n, m](x[n, m] * s[])\n return y[]\n}",
                                               (X, np.float32(3)), 3 + 3 * X.sum()),
    "index notation: three factors": ("fn f(x: f32[N, M], y: f32[N, M], v: f32[M]) -> f32[N] {\n s[n] = sum[m](x[n, m] * y[n, m] * v[m])\n return s\n}",
                                      (X, Y, V), (X * Y * V).sum(1)),
    "index notation: convolution": ("const stride = 2\nfn f(x: f32[B, C, H, Q], w: f32[K, C, U, V]) -> f32[B, K, (H - U) // 2 + 1, (Q - V) // 2 + 1] {\n"
                                    " y[b, k, i, j] = sum[c, u, v](x[b, c, i*stride + u, j*stride + v] * w[k, c, u, v])\n return y\n}", (I4, K4), conv(I4, K4, 2)),
    "index notation: pooling": ("fn f(x: f32[B, C, 6, 7]) -> f32[B, C, 3, 3] {\n m[b, c, i, j] = max[u in 0..2, v in 0..2](x[b, c, 2*i + u, 2*j + v])\n return m\n}", (I4,), pool(I4)),
    "index notation: read again": ("fn f(x: f32[B, C, H, Q]) -> f32[B, C, 2*H, 3*Q] {\n y[b, c, i, j] = x[b, c, i // 2, j // 3]\n return y\n}",
                                   (I4,), I4.repeat(2, 2).repeat(3, 3)),
    "index notation: again and again": ("fn f(x: f32[N, M]) {\n y[n, i in 0..7] = x[n, i % 3]\n return y\n}", (X,), X[:, [0, 1, 2, 0, 1, 2, 0]]),
    "index notation: a remainder of a quotient": ("fn f(x: f32[N, M]) {\n y[n, i in 0..7] = x[n, i // 2 % 3]\n return y\n}", (X,), X[:, [0, 0, 1, 1, 2, 2, 0]]),
    "index notation: steps of quotients": ("fn f(x: f32[N, M]) {\n y[n, i] = x[n, 2*(i // 2) + 1]\n return y\n}", (X,), X[:, [1, 1, 3, 3]]),
    "index notation: a quotient that is shifted": ("fn f(v: f32[N]) {\n y[i] = v[(i + 3) // 2 - 1]\n return y\n}", (V,), V[[0, 1, 1, 2, 2, 3, 3]]),
    "index notation: from the end": ("fn f(x: f32[N, M]) {\n y[n, i] = x[n, M - 1 - i]\n return y\n}", (X,), X[:, ::-1]),
    "index notation: a quotient from the end": ("fn f(v: f32[N]) {\n y[i in 0..6] = v[N - 1 - i // 2]\n return y\n}", (V,), V[[3, 3, 2, 2, 1, 1]]),
    "index notation: a known place from the end": ("fn f(v: f32[N]) {\n y[i] = v[2 - i]\n return y\n}", (V,), V[2::-1]),
    "index notation: convolution as it is written": (
        "fn f(v: f32[N], w: f32[K]) {\n y[i] = sum[u](v[i - u + K - 1] * w[u])\n return y\n}", (V, V[1:]), np.convolve(V, V[1:], "valid")),
    "index notation: convolution around the middle": (
        "fn f(x: f32[H, W], w: f32[2*P + 1, 2*Q + 1]) {\n p = pad(x, [[P, P], [Q, Q]])\n"
        " y[i in 0..H, j in 0..W] = sum[u, v](p[i - u + 2*P, j - v + 2*Q] * w[u, v])\n return y\n}",
        (X, X[:3, :3]), conv(np.pad(X, 1)[None, None], X[None, None, 2::-1, 2::-1], 1)[0, 0]),
    "index notation: the slope of what is read again": (
        "fn f(v: f32[N]) {\n y[i in 0..7] = v[i % 3] * v[i // 2] * i\n return grad(sum(y), v)\n}", (V,),
        sum(i * (np.eye(4)[i % 3] * V[i // 2] + V[i % 3] * np.eye(4)[i // 2]) for i in range(7))),
    "indices are numbers": ("fn f(x: f32[N, M]) {\n y[n, i] = x[n, i] * i + 0.5 * (n - i) + i / 2\n return y\n}", (X,), X * COLUMN + (ROW - COLUMN) / 2 + COLUMN / 2),
    "indices are whole numbers": ("fn f(i: i64[N]) {\n y[n] = i[n] * n + n % 2\n return y\n}", (np.arange(3),), [0, 2, 4]),
    "indices are compared": ("fn f(x: f32[N, M]) {\n y[n, i] = where(i <= n, x[n, i], -1)\n return y\n}", (X,), np.where(COLUMN <= ROW, X, -1)),
    "indices of a table": (
        "fn f(x: f32[T, D]) {\n p[t in 0..T, k in 0..D] = sin(t / 10000^(2*(k // 2) / D))\n return x + p\n}",
        (X,), X + np.sin(ROW / 10000.0 ** (2 * (COLUMN // 2) / X.shape[1]))),
    "a gradient": ("fn f(x: f32[N]) -> f32[N] = grad(sum(x^3), x)", (V,), 3 * V**2),
    "a gradient of a gradient": ("fn f(x: f32[N]) -> f32[N] = grad(sum(grad(sum(x^4), x)), x)", (V,), 12 * V**2),
    "a stopped gradient": ("fn f(x: f32[N]) -> f32[N] = grad(sum(x * stop_grad(x)), x)", (V,), V),
    "straight through": ("fn f(x: f32[N]) -> f32[N] = grad(sum(straight_through(sign(x), x) * x), x)", (V,), np.sign(V) + V),
    "a gradient of relu at 0": ("fn f(x: f32[3]) -> f32[3] = grad(sum(relu(x)), x)", (np.array([-1, 0, 1], np.float32),), [0, 0, 1]),
    "repeat": ("fn f(x: f32[N]) -> f32[N] {\n repeat 3 { x = x * 2 }\n return x\n}", (V,), 8 * V),
    "repeat with an index": ("fn f(x: f32[N]) -> f32[N] {\n y = 0 * x\n repeat k in 1..4 { y = y + x^k }\n return y\n}", (V,), V + V**2 + V**3),
    "lists are tensors": ("fn f(x: f32[N, 3]) -> f32[N] = x @ [2.0, 4.0, -1.0]", (X[:, :3],), X[:, :3] @ [2, 4, -1]),
    "numbers take the dtype": ("fn f(i: i32[N]) -> i32[N] = i * 2 + 1", (np.arange(3, dtype=np.int32),), [1, 3, 5]),
    "greek names": ("fn f(θ: f32[N]) -> f32[N] = θ * π2\nconst π2 = 6.5", (V,), V * 6.5),
    "a line that begins with a pipe": ("fn f(x: f32[N]) -> f32 {\n return x\n     |> abs\n     |> sum\n}", (V,), np.abs(V).sum()),
}  # fmt: skip


def test_a_wrong_program_is_told_without_the_frames_of_the_compiler():
    for wrong in (lambda: nnc.function("fn f(x: f32[N]) = expp(x)"), lambda: nnc.compile("model M(x: f32[B]) {")):
        with pytest.raises(nnc.SourceError) as caught:
            wrong()
        frames = [f.filename for f in traceback.extract_tb(caught.value.__traceback__)]
        assert len(frames) == 3 and frames[-1].endswith("api.py") and caught.value.__suppress_context__


@pytest.mark.parametrize(
    "left, right",
    [
        ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((1, 2, 3), (5, 3, 4)),
    ],
)  # fmt: skip
def test_a_matrix_product_follows_numpy(left, right):
    x, y = np.arange(np.prod(left)).reshape(left), np.arange(np.prod(right)).reshape(right)
    f = nnc.function(f"fn f(x: f32{list(left)}, y: f32{list(right)}) = x @ y", cache=False)
    np.testing.assert_array_equal(f(x, y), x @ y)



@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_means_what_numpy_says(name):
    text, args, want = FUNCTIONS[name]
    got = nnc.function(text, threads=1)(*args)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_optimising_changes_nothing(name):
    from nnc.compiler.session import Session
    from nnc.compiler.settings import Settings
    from nnc.dsl.source import Source
    from nnc.runtime.model import Model

    text, args, want = FUNCTIONS[name]
    net = Model(Session(Source("<text>", text), Settings(optimize=False)), threads=1)
    np.testing.assert_allclose(net.call("f", *args), want, rtol=2e-5, atol=2e-6)


MODEL = """
hyper width: int = 8 in [4, 8, 16]

layer Twice(x: f32[*lead, D], out: int) -> f32[*lead, out] {
    weight W: f32[out, D] ~ glorot_uniform(fan_in = D, fan_out = out)
    return x @ W.T + x @ W.T
}

model Net(x: f32[B, 4]) -> (y: f32[B, 3], h: f32[B, width]) {
    h = x |> first: Dense(width) |> tanh
    share mix = Dense(width)
    h = h |> mix |> relu |> mix
    repeat 2 { h = h |> Twice(width) }
    y = h |> Dense(3, bias = false)
}

export attention(x: f32[1, 4]) -> f32[1, 4] = abs(grad(sum(Net(x).y), x))
export scaled(x: f32[B, 4], factor: f32 = 2.0) -> f32[B, 3] = factor * Net(x).y
export first(x: f32[B, 4]) -> f32[B, 8] {
    y = Net(x)
    return Net.first
}
"""


def test_instances_have_stable_names():
    net = nnc.compile(MODEL, seed=3)
    assert list(net.params) == ["Net.first.W", "Net.first.b", "Net.mix.W", "Net.mix.b", "Net.twice_1.W", "Net.twice_2.W",
                                "Net.dense_1.W"]  # fmt: skip
    assert net.params["Net.first.W"].shape == (8, 4)


def test_a_model_is_what_its_parameters_say():
    net = nnc.compile(MODEL, seed=3)
    p = net.params
    h = np.tanh(X @ p["Net.first.W"].T + p["Net.first.b"])
    mix = lambda h: h @ p["Net.mix.W"].T + p["Net.mix.b"]  # noqa: E731
    h = mix(np.maximum(mix(h), 0))
    for k in (1, 2):
        h = 2 * (h @ p[f"Net.twice_{k}.W"].T)
    out = net.predict(X)
    np.testing.assert_allclose(out.h, h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out.y, h @ p["Net.dense_1.W"].T, rtol=1e-4, atol=1e-5)


def test_taps_and_exports():
    net = nnc.compile(MODEL, seed=3)
    tap = X @ net.params["Net.first.W"].T + net.params["Net.first.b"]
    np.testing.assert_allclose(net.taps(X)["Net.first"], tap, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.first(X), tap, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(net.scaled(X), 2 * net.predict(X).y, rtol=1e-5)
    np.testing.assert_allclose(net.scaled(X, factor=-1.0), -net.predict(X).y, rtol=1e-5)
    assert net.attention(X[:1]).shape == (1, 4)


def test_what_is_inside_a_model_can_be_read_and_differentiated():
    net = nnc.compile(MODEL + """
export inside(x: f32[B, 4]) -> (twice: f32[B, 8], by_x: f32[B, 4], by_first: f32[B, 8]) {
    y = Net(x)
    twice = Net.twice_1
    by_x = grad(sum(Net.first), x)
    by_first = grad(sum(y.y), Net.first)
}
""", seed=3)
    p, found = net.params, net.inside(X)
    np.testing.assert_allclose(found.twice @ p["Net.twice_2.W"].T * 2, net.predict(X).h, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.by_x, np.tile(p["Net.first.W"].sum(0), (len(X), 1)), rtol=1e-4, atol=1e-5)
    attention = np.concatenate([net.attention(x[None]) for x in X])
    np.testing.assert_allclose(np.abs(found.by_first @ p["Net.first.W"]), attention, rtol=1e-4, atol=1e-5)


def test_a_hyper_changes_the_program_and_is_checked():
    net = nnc.compile(MODEL, hyper={"width": 16})
    assert net.params["Net.mix.W"].shape == (16, 16)
    with pytest.raises(nnc.SourceError, match="E0308"):
        nnc.compile(MODEL, hyper={"width": 5})
    with pytest.raises(nnc.SourceError, match="did you mean `width`"):
        nnc.compile(MODEL, hyper={"widht": 8})


STATE = """
model Count(x: f32[B, 2]) -> f32[B, 2] {
    state calls: f32 = 0
    state total: f32[2] = 0
    when training {
        calls := calls + 1
        total := total + sum(x, axis = 0)
    }
    bias b: f32[2] = 0
    return x + b
}
train Count(x) {
    loss = mean(output)
    optimizer = SGD(0)
}
"""


def test_state_commits_when_the_step_ends():
    net = nnc.compile(STATE)
    net.predict(X[:, :2])
    assert net.state["Count.calls"] == 0
    net.train_step(X[:, :2])
    net.train_step(X[:3, :2])
    assert net.state["Count.calls"] == 2
    np.testing.assert_allclose(net.state["Count.total"], X[:, :2].sum(0) + X[:3, :2].sum(0), rtol=1e-5)


def test_one_compilation_serves_every_batch_size():
    net = nnc.compile(MODEL, seed=3)
    whole = net.predict(np.tile(X, (9, 1))).y
    for n in (0, 1, 2, 5, 7, 16, 33, 45):
        np.testing.assert_allclose(net.predict(np.tile(X, (9, 1))[:n]).y, whole[:n], rtol=1e-6)


OUTSIDE = {
    "a slice": "fn f(x: f32[N]) = x[0:10]", "an index": "fn f(x: f32[N]) = x[4]", "from the end": "fn f(x: f32[N]) = x[-10:]",
    "far away": "fn f(x: f32[N]) = x[1000000000]", "an empty slice": "fn f(x: f32[N]) = x[10:]",
    "two slices": "fn f(x: f32[N]) = sum(x[0:400000000] * 1.0 + x[-400000000:])",
}  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_slice_outside_an_axis_of_unknown_size_is_refused_at_run_time(name):
    f = nnc.function(OUTSIDE[name], threads=1)
    with pytest.raises(nnc.ArgumentError, match=r"N(?: - \d+)? is "):
        f(np.ones(4, np.float32))


def test_a_slice_inside_an_axis_of_unknown_size():
    x = np.arange(12, dtype=np.float32)
    for text, want in (("x[2:10:3]", x[2:10:3]), ("x[-4:]", x[-4:]), ("x[:-2]", x[:-2]), ("x[-1]", x[-1]), ("x[3]", x[3])):
        np.testing.assert_array_equal(nnc.function(f"fn f(x: f32[N]) = {text}", threads=1)(x), want)


NOTATION = {
    "past the end": "fn f(x: f32[N]) -> f32[N] {\n m[i] = x[i+1] - x[i]\n return m\n}",
    "before the start": "fn f(x: f32[N]) -> f32[N] {\n m[i] = x[i-1]\n return m\n}",
    "a window": "fn f(x: f32[N]) -> f32[N] {\n m[i] = min[u in 0..3](x[i+u] + 0 * x[i])\n return m\n}",
    "a range": "fn f(x: f32[2]) -> f32 = sum[i in 0..3](x[i])",
    "bound and on the left": "fn f(x: f32[N]) -> f32[N] {\n m[i] = sum[i](x[i])\n return m\n}",
    "looked up": "fn f(x: f32[N], k: i32[N]) -> f32[N] {\n m[i] = x[k[i]]\n return m\n}",
}


@pytest.mark.parametrize("name", NOTATION)
def test_an_index_that_leaves_its_axis_is_refused(name):
    with pytest.raises(nnc.SourceError) as e:
        nnc.function(NOTATION[name])(X[0], X[0])
    assert e.value.code == "E0309"


def test_the_transpose_of_a_list():
    f = nnc.function("fn f(x: f32[N, 2]) -> f32[N, 3] = x @ [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]].T", threads=1)
    np.testing.assert_allclose(f(X[:, :2]), X[:, :2] @ np.array([[1, 3, 5], [2, 4, 6]]), rtol=1e-5)
    with pytest.raises(nnc.SourceError, match=r"`\.T` needs two axes or more"):
        nnc.function("fn f(x: f32[2]) -> f32 = x @ [1.0, 2.0].T")(np.ones(2, np.float32))


def test_parts_of_an_axis_of_unknown_size():
    f = nnc.function("fn f(x: f32[N, M]) {\n (a, b) = split(x, 2, axis = 1)\n return a - b\n}", threads=1)
    np.testing.assert_allclose(f(X), X[:, :2] - X[:, 2:])
    with pytest.raises(nnc.ArgumentError, match="must divide into 2 equal parts"):
        f(X[:, :3])
    g = nnc.function("fn f(x: f32[N, M]) {\n (a, b) = split(x, [1, 3], axis = 1)\n return b\n}", threads=1)
    np.testing.assert_allclose(g(X), X[:, 1:])
    with pytest.raises(nnc.ArgumentError, match="M is 3"):
        g(X[:, :3])


@pytest.mark.parametrize("text", ["x + 1e39", "x * [1e39]", "x + 9^9^9^9", "x * exp(1000)", "cast(x, i32) + 2147483648"])
def test_numbers_that_do_not_fit_are_refused(text):
    with pytest.raises(nnc.SourceError, match=r"does not fit|too large"):
        nnc.function(f"fn f(x: f32[1]) = {text}")(np.ones(1, np.float32))


TRAINING = """
optimizer Average(lr) {{
    {state}
    {body}
}}
model Line(x: f32[B, 2]) -> (y: f32[B]) {{
    weight w: f32[2] = [1.0, 2.0]
    y = x @ w
}}
train Line(x, t: f32[B]) {{
    loss = {loss}
    optimizer = Average(lr = 0.1)
    {more}
}}
"""


def training(state="state average = p", body="p := p - lr * g\n    average := 0.5 * average + 0.5 * p", loss="mean((y - t)^2)", more=""):
    return TRAINING.format(state=state, body=body, loss=loss, more=more)


def test_optimizer_state_may_begin_as_the_parameter():
    net = nnc.compile(training())
    np.testing.assert_array_equal(net.slots["Line.w/average"], [1, 2])
    net.train_step(X[:, :2], X[:, 2])
    np.testing.assert_allclose(net.slots["Line.w/average"], 0.5 * np.array([1, 2]) + 0.5 * net.params["Line.w"], rtol=1e-6)


@pytest.mark.parametrize(("change", "code"), [
    ({"state": "state average = g"}, "E0307"), ({"state": "state p = 0"}, "E0202"),
    ({"state": "weight average: f32[2] = 0"}, "E0307"),
    ({"state": "", "body": "p = p - lr * g"}, "E0203"), ({"loss": "mean(t^2)"}, "E0401"),
    ({"more": "stop when loss"}, "E0307"), ({"more": "metric epoch = mean(y)"}, "E0202"),
    ({"more": "metric val_loss = mean(y)"}, "E0202"),
])  # fmt: skip
def test_training_that_cannot_be_meant_is_refused(change, code):
    with pytest.raises(nnc.SourceError) as e:
        nnc.compile(training(**change))
    assert e.value.code == code


def test_functions_map_over_groups():
    text = training(loss="mean((y - t)^2) + sum(where(abs(weights) < 1.5, weights, 0)) + sum(softplus(weights))")
    net = nnc.compile(text)
    x, t, w = X[:, :2], X[:, 2], np.array([1.0, 2.0])
    want = ((x @ w - t) ** 2).mean() + 1 + np.log1p(np.exp(w)).sum()
    assert abs(net.loss(x, t) - want) < 1e-5


@pytest.mark.parametrize("name", ["fit", "predict", "init", "workspace", "dataset", "train_spec", "variables", "exports",
                                  "check_exports", "_calls", "_mine", "__init__", "__class__", "__reduce__", "__array__"])
def test_an_export_is_nothing_that_every_model_has(name):
    with pytest.raises(nnc.SourceError, match=f"an export cannot be called `{name}`"):
        nnc.compile(f"model M(x: f32[B]) -> f32[B] {{ return x }}\nexport {name}(x: f32[B]) -> f32[B] = M(x)")


def test_a_model_has_nothing_that_its_class_does_not_tell():
    net = nnc.compile(training())
    net.fit(X[:, :2], X[:, 2], epochs=1)
    assert not hasattr(net, "__dict__")


@pytest.mark.parametrize("axis", [0, 1])
def test_many_parts_are_joined(axis):
    """More than one kernel joins; parts of several widths, some the same, and their gradients."""
    cuts = [(k % 3, 3 + k % 2, k % 5) for k in range(130)]
    parts = ", ".join(f"x[{a}:{b}] * {c}" if axis == 0 else f"x[:, {a}:{b}] * {c}" for a, b, c in cuts)
    text = f"fn f(x: f32[4, 4], w: f32[N, M]) -> f32[N, M] = concat([{parts}], axis = {axis}) * w"
    want = np.concatenate([X[:4].take(range(a, b), axis) * c for a, b, c in cuts], axis)
    w = rng.normal(size=want.shape).astype(np.float32)
    np.testing.assert_allclose(nnc.function(text)(X[:4], w), want * w, rtol=1e-6)
    slope = np.zeros((4, 4))
    at = 0
    for a, b, c in cuts:
        np.moveaxis(slope, axis, 0)[a:b] += c * np.moveaxis(w, axis, 0)[at : at + b - a]
        at += b - a
    grad = f"fn f(x: f32[4, 4], w: f32[N, M]) -> f32[4, 4] = grad(sum(g(x, w)), x)\n{text.replace('fn f', 'fn g')}"
    np.testing.assert_allclose(nnc.function(grad)(X[:4], w), slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("letter", ["a", "\u03c9"])
def test_names_are_as_long_as_they_are(letter):
    a = letter * 1100
    net = nnc.compile(f"""
    model {a}({a}1: f32[{a}3, 4]) -> ({a}4: f32[{a}3, 4]) {{
        {a}5 = {a}1 |> Dense(4) |> {a}: Dense(4)
        scan {a}6 in 0..3 {{ {a}5 = tanh({a}5) + {a}6 / {a}3 }}
        {a}4 = {a}5
    }}
    export {a}7({a}1: f32[{a}3, 4]) -> f32[{a}3, 4] = {a}({a}1) + 1
    """)
    np.testing.assert_array_equal(net.call(f"{a}7", X), net.predict(X) + 1)


def test_names_of_inputs_are_free():
    net = nnc.compile("model M(self: f32[B], name: f32[B]) -> f32[B] { return self - name }\n"
                      "export e(self: f32[B], name: f32[B]) -> f32[B] = M(name, self)")
    np.testing.assert_array_equal(net.predict(self=V, name=2 * V), -V)
    np.testing.assert_array_equal(net.e(self=V, name=2 * V), V)
    np.testing.assert_array_equal(nnc.function("fn seed(name: f32[N]) -> f32[N] = name")(name=V), V)


def test_sizes_that_only_run_time_knows_are_guarded():
    f = nnc.function("fn f(x: f32[N], y: f32[M]) -> f32 = sum(x * y)")
    np.testing.assert_allclose(f(V, 2 * V), 2 * (V**2).sum(), rtol=1e-6)
    with pytest.raises(nnc.ArgumentError, match="N is 4, M is 3"):
        f(V, V[:3])


EMPTY, WIDE, BIG = np.ones((0, 3), np.float32), np.ones((3, 0), np.float32), np.zeros((2**31, 0), bool)


@pytest.mark.parametrize(("text", "arguments", "wrong"), [
    ("fn f(x: f32[N, M]) -> f32[M] = max(x, axis = 0)", (EMPTY,), "`max` has nothing to choose from where axis 0"),
    ("fn f(x: f32[N, M]) -> f32[N] = min(x, axis = 1)", (EMPTY,), None),
    ("fn f(x: f32[N, M]) -> f32 = min(x)", (WIDE,), "`min` has nothing to choose from where axis 1"),
    ("fn f(x: f32[N, M]) -> i32[N] = argmax(x)", (WIDE,), "`argmax` has nothing"),
    ("fn f(x: f32[N, M]) -> i32[M] = argmin(x, axis = 0)", (WIDE,), None),
    ("fn f(x: f32[N, M]) -> f32[N] {\n y[i] = max[j](x[i, j])\n return y\n}", (WIDE,), "`max` has nothing"),
    ("fn f(x: f32[N, M]) -> f32 = sum(x) + N // M", (WIDE,), "N is divided by M"),
    ("fn f(x: f32[N, M]) -> f32 = sum(x) + N % (M - 3)", (EMPTY,), r"N is divided by M - 3.*M - 3 is 0"),
    ("fn f(x: bool[N, M]) -> i32 = sum(cast(x, i32)) + N", (BIG,), "N must fit i32.*N is 2147483648"),
    ("fn f(x: bool[N, M]) -> i32 = sum(cast(x, i32)) + 2 * N", (BIG[: 2**30],), r"2\*N must fit i32"),
    ("fn f(x: bool[N, M]) -> i64 = sum(cast(x[:0], i64)) + N", (BIG,), None),
    ("fn f(x: bool[N, M]) -> i32 = iota(N)[0] + sum(x)", (BIG,), "the positions along an axis of N must fit i32"),
    ("fn f(x: bool[N, M]) -> i32[M] = argmax(cast(x, i32), axis = 0)", (BIG,), "an axis of N must fit i32"),
    ("fn f(x: bool[N, M]) -> i32[N] = iota(N)", (BIG[:5],), None),
])  # fmt: skip
def test_sizes_that_have_no_answer_are_refused(text, arguments, wrong):
    f = nnc.function(text)
    if wrong is None:
        f(*arguments)
    else:
        with pytest.raises(nnc.ArgumentError, match=wrong) as e:
            f(*arguments)
        assert e.value.code == "E0606"


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_whole_numbers_divide_as_in_python(dtype):
    least = np.iinfo(dtype).min
    a = np.array([7, -7, 7, -7, least, least, 5, 0, 6, 1], dtype)
    b = np.array([2, 2, -2, -2, -1, 1, 0, 0, -7, least], dtype)
    name = {np.int32: "i32", np.int64: "i64"}[dtype]
    f = nnc.function(f"fn f(a: {name}[N], b: {name}[N]) -> {name}[2, N] = stack([a // b, a % b])")
    wide = [(int(x), int(y)) for x, y in zip(a, b, strict=True)]
    wrap = 2 ** np.iinfo(dtype).bits
    floors = [(x // y + wrap // 2) % wrap - wrap // 2 if y else 0 for x, y in wide]
    for found, want in zip(f(a, b), (floors, [x % y if y else 0 for x, y in wide]), strict=True):
        np.testing.assert_array_equal(found, np.array(want, dtype))


def test_dtype_f64_reads_every_f32_as_f64():
    f = nnc.function("fn f(x: f32[N]) -> f32 = sum(exp(x))", dtype="f64")
    x = rng.normal(size=100)
    assert f(x).dtype == np.float64
    np.testing.assert_allclose(f(x), np.exp(x).sum(), rtol=1e-14)


def test_draws_depend_on_the_seed_alone():
    text = """
    model Noise(x: f32[B, 1000]) -> f32[B, 1000] { return x |> dropout(p = 0.25) }
    train Noise(x) {
        update { }
        metric dropped = mean(output == 0)
    }
    """
    net = nnc.compile(text)
    x = np.ones((2, 1000), np.float32)
    np.testing.assert_array_equal(net.predict(x), x)  # inference has no dropout
    first, second = net.train_step(x)["dropped"], net.train_step(x)["dropped"]
    assert first != second and abs(first - 0.25) < 0.05
    again = nnc.compile(text)
    assert (again.train_step(x)["dropped"], again.train_step(x)["dropped"]) == (first, second)
    assert nnc.compile(text, seed=1).train_step(x)["dropped"] != first


def test_dropout_drops_p_and_keeps_the_mean():
    f = nnc.function("fn f(x: f32[N]) -> f32[N] = where(bernoulli(0.75, shape = shape(x)), x / 0.75, 0)", threads=1)
    out = f(np.ones(100_000, np.float32))
    assert abs((out == 0).mean() - 0.25) < 0.01 and abs(out.mean() - 1) < 0.01


@pytest.mark.parametrize(("layer", "told"), [
    ("Dense(3, init = zeros) |> tanh", True), ("Dense(3, init = constant(0.5)) |> relu", True),
    ("Dense(3) |> tanh", False), ("Dense(3, init = zeros)", False), ("Dense(3, init = normal(0, 0.1)) |> sigmoid", False),
])  # fmt: skip
def test_a_constant_weight_behind_a_nonlinearity_is_warned_about(layer, told):
    text = f"model M(x: f32[B, 4]) -> f32[B, 3] {{ return x |> {layer} }}"
    if told:
        with pytest.warns(UserWarning, match=r"`M.dense_1.W` starts as one constant and feeds (tanh|maximum)"):
            nnc.compile(text)
    else:
        assert nnc.compile(text).manifest.warnings == ()


def test_stopping_on_something_that_is_no_metric():
    text = training(more="stop when norm(grad(loss, params)) <= 1e-3 and not (epoch < 2) or -loss > 1.0\n    epochs = 500")
    net = nnc.compile(text.replace("lr = 0.1", "lr = 0.3"))
    x, t = X[:, :2], X[:, :2] @ np.array([0.5, -1], np.float32)
    history = net.fit(x, t)
    assert 3 <= len(history) < 500 and history.stopped
    assert net.gradients(x, t)["Line.w"] @ net.gradients(x, t)["Line.w"] <= 1e-6
    assert set(net.evaluate(x, t)) == {"loss"}
