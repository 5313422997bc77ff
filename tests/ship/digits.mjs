// A training of the digits, in the folder that `nnc build --as wasm` made: `digits.mjs FOLDER EPOCHS`.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, epochs] = process.argv.slice(2);
const { load } = await import(pathToFileURL(`${folder}/index.mjs`));
function read(name, Kind) {
    const bytes = readFileSync(name);
    return new Kind(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}
const images = read("images.bin", Float32Array), labels = read("labels.bin", Int32Array), n = labels.length;
const net = await load();
const state = net.init({ seed: 42, steps: 60 * Math.ceil(n / 64) });
for (let epoch = 0; epoch < epochs; epoch++) {
    const order = net.order(n, 42, epoch);
    for (let at = 0; at < n; at += 64) {
        const some = [...order.subarray(at, at + 64)];
        const x = new Float32Array(64 * some.length), label = Int32Array.from(some, (k) => labels[k]);
        some.forEach((k, row) => x.set(images.subarray(64 * k, 64 * k + 64), 64 * row));
        net.train(state, { x, label });
    }
    state.set("train/epoch", BigInt(epoch + 1));
}
writeFileSync("state.bin", state.bytes);
const again = net.hold("state", state.bytes);
const prepared = net.prepare(again);
writeFileSync("logits.bin", net.predict(prepared, { x: images }).logits);
prepared.free();
const { loss, accuracy } = net.evaluate(state, { x: images, label: labels });
const wrong = [];
for (const given of [{ x: images, label: labels.map(() => 77) }, { x: images.subarray(1), label: labels }, { x: images }])
    try {
        net.train(state, given);
    } catch (e) {
        wrong.push(e.message);
    }
console.log(JSON.stringify({ relaxed: net.relaxed, loss, accuracy, wrong, scalar: Number(state.get("train/t")) }));
