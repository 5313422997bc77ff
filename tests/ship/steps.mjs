// Steps of any network, in the folder that `nnc build --as wasm` made: `steps.mjs FOLDER`. It reads steps.json, a list of
// {inputs: {name: [dtype, file] or a number}, sizes}, and writes state.bin.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const KINDS = { f32: Float32Array, f64: Float64Array, i32: Int32Array, i64: BigInt64Array, bool: Uint8Array };
const [folder] = process.argv.slice(2);
const { load } = await import(pathToFileURL(`${folder}/index.mjs`));
const net = await load();
const { seed, steps, calls } = JSON.parse(readFileSync("steps.json"));
const state = net.init({ seed, steps });
for (const { inputs, sizes } of calls) {
    const given = {};
    for (const [name, value] of Object.entries(inputs)) {
        if (typeof value === "number") given[name] = value;
        else {
            const bytes = readFileSync(value[1]);
            given[name] = new KINDS[value[0]](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
        }
    }
    net.train(state, given, sizes);
}
writeFileSync("state.bin", state.bytes);
