// What steps.c does, of a WebAssembly module: `steps.mjs MODULE STATE_BYTES SCRATCH_BYTES BATCH NUMBERS STEPS`.
import { readFileSync } from "node:fs";

const [module, stateBytes, scratchBytes, batch, numbers, steps] = process.argv.slice(2).map((a, k) => (k ? +a : a));
const { instance } = await WebAssembly.instantiate(readFileSync(module), {});
const net = instance.exports;
let free = net.heap.value;
function room(bytes) {
    const at = (free + 15) & ~15;
    free = at + bytes;
    const more = free - net.memory.buffer.byteLength;
    if (more > 0) net.memory.grow(Math.ceil(more / 65536));
    return at;
}
function must(code) {
    if (code) throw new Error(`code ${code}`);
}
const state = room(stateBytes), scratch = room(scratchBytes), metrics = room(64);
const x = room(4 * batch * numbers), label = room(4 * batch);
const images = new Float32Array(net.memory.buffer, x, batch * numbers);
const labels = new Int32Array(net.memory.buffer, label, batch);
must(net.net_init(state, 7n, 100n, scratch, scratchBytes));
let r = 1;
const next = () => (r = (Math.imul(r, 1664525) + 1013904223) >>> 0);
for (let step = 0; step < steps; step++) {
    for (let k = 0; k < images.length; k++) images[k] = (next() >>> 8) * 5.9604644775390625e-8;
    for (let k = 0; k < batch; k++) labels[k] = (next() >>> 28) % 10;
    must(net.net_train(state, batch, x, label, metrics, scratch, scratchBytes));
}
let hash = 2166136261;
for (const byte of new Uint8Array(net.memory.buffer, state, stateBytes)) hash = Math.imul(hash ^ byte, 16777619) >>> 0;
console.log(hash.toString(16).padStart(8, "0"));
