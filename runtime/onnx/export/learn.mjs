// Training in ONNX Runtime Web by what `nnc export --train --with web` wrote: NAME.start.onnx gives the variables as they
// begin, NAME.onnx is a step. `learn.html` calls it; in node, where `npm install onnxruntime-web` was:
// `node learn.mjs NAME NAME.json --epochs 3 --batch 32`. Examples are {input: [a row for each], ..}, nested as they are.
const ARRAYS = { float32: Float32Array, float64: Float64Array, int32: Int32Array, int64: BigInt64Array, bool: Uint8Array };

// Learns; yields {epoch, metrics, state} after each step. `start` and `step` are paths, URLs or bytes.
export async function* learn(ort, start, step, examples, { epochs = 1, batch } = {}) {
    const begin = await open(ort, start), session = await open(ort, step);
    const state = await begin.run({}), taken = new Set(session.inputNames);
    const own = session.inputMetadata.filter(({ name }) => !(name in state));
    const lacking = own.filter(({ name }) => !Array.isArray(examples[name])).map(({ name }) => name);
    if (lacking.length) throw new Error(`the examples lack ${lacking.join(", ")}`);
    const n = examples[own[0]?.name]?.length;
    batch ??= n;
    if (own.some(({ name }) => examples[name].length !== n) || !(Math.min(n, epochs, batch) >= 1))
        throw new Error("as many rows for each input, epochs and batch are from 1 on");
    const put = (name, v) => name in state && (state[name] = new ort.Tensor("int64", [BigInt(v)], []));
    put("train/steps", epochs * Math.ceil(n / batch));
    for (let epoch = 0; epoch < epochs; epoch++) {
        put("train/epoch", epoch);
        for (let at = 0; at < n; at += batch) {
            const given = Object.fromEntries(Object.entries(state).filter(([name]) => taken.has(name)));
            for (const { name, type } of own) given[name] = tensor(ort, type, examples[name].slice(at, at + batch));
            const metrics = {};
            for (const [name, v] of Object.entries(await session.run(given)))
                if (name.startsWith("next/")) state[name.slice(5)] = v;
                else if (!v.dims.length) metrics[name] = Number(v.data[0]);
            yield { epoch, metrics, state };
        }
    }
}

const open = (ort, model) => ort.InferenceSession.create(model, { executionProviders: ["wasm"], logSeverityLevel: 3 });

function tensor(ort, type, rows) {
    const dims = [];
    for (let a = rows; Array.isArray(a); a = a[0]) dims.push(a.length);
    return new ort.Tensor(type, ARRAYS[type].from(rows.flat(Infinity), type === "int64" ? BigInt : Number), dims);
}

// What was learned as bytes of a .safetensors file, which `nnc load-weights` reads: without what the optimizer keeps.
export function safetensors(state) {
    const kinds = { float32: "F32", float64: "F64", int32: "I32", int64: "I64", bool: "BOOL" }, header = {}, parts = [];
    let end = 0;
    for (const [path, { type, dims, data }] of Object.entries(state)) {
        if (path.includes("/") && !path.startsWith("normalize/")) continue;
        header[path] = { dtype: kinds[type], shape: dims, data_offsets: [end, (end += data.byteLength)] };
        parts.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    }
    const text = new TextEncoder().encode(JSON.stringify(header));
    const bytes = new Uint8Array(8 + text.length + end);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
    let at = 8;
    for (const part of [text, ...parts]) {
        bytes.set(part, at);
        at += part.length;
    }
    return bytes;
}

async function main() {
    const { readFile, writeFile } = await import("node:fs/promises");
    const { parseArgs } = await import("node:util");
    const options = { epochs: { type: "string", default: "1" }, batch: { type: "string" } };
    options.output = { type: "string", short: "o", default: "learned.safetensors" };
    const { values, positionals: [name, data] } = parseArgs({ options, allowPositionals: true });
    if (!data) throw new Error("node learn.mjs NAME DATA.json [--epochs N] [--batch N] [-o FILE]");
    const ort = await import("onnxruntime-web"), examples = JSON.parse(await readFile(data, "utf-8"));
    const asked = { epochs: Number(values.epochs), batch: values.batch && Number(values.batch) };
    let last;
    for await (last of learn(ort, `${name}.start.onnx`, `${name}.onnx`, examples, asked)) {
        const told = Object.entries(last.metrics).map(([metric, v]) => `${metric} ${v}`);
        console.log(`epoch ${last.epoch + 1}`, ...told);
    }
    await writeFile(values.output, safetensors(last.state));
}

const isNode = typeof process !== "undefined" && !!process.versions?.node;
if (isNode && (await import("node:url")).pathToFileURL(process.argv[1] ?? "").href === import.meta.url)
    await main().catch((e) => {
        console.error(e.message);
        process.exitCode = 1;
    });
