// A network as WebAssembly. The facts below are of it; the rest is the same for every network.
export const facts = /*FACTS*/ {};

const ARRAYS = {
    f32: Float32Array,
    i8: Int8Array,
    i16: Int16Array,
    f64: Float64Array,
    i32: Int32Array,
    i64: BigInt64Array,
    u64: BigUint64Array,
    bool: Uint8Array,
};
const inNode = typeof process !== "undefined" && !!process.versions?.node;

async function read(name) {
    const url = new URL(name, import.meta.url);
    if (inNode && url.protocol === "file:") return (await import("node:fs/promises")).readFile(url);
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
    return response.arrayBuffer();
}

// The network, by fused multiply-adds where the engine has them; else they are written out. Both give the same bits.
// `modules` are the bytes of both, where they are not beside this file.
export async function load(modules = {}) {
    try {
        const module = await WebAssembly.compile(modules.relaxed ?? (await read(facts.relaxed)));
        const network = new Network((await WebAssembly.instantiate(module)).exports, true);
        if (!network.exports[`${facts.prefix}_check`](BigInt(facts.header))) return network;
    } catch (e) {
        if (!(e instanceof WebAssembly.CompileError)) throw e;
    }
    const module = await WebAssembly.compile(modules.exact ?? (await read(facts.exact)));
    return new Network((await WebAssembly.instantiate(module)).exports, false);
}

// Bytes in the memory of a network: a state, weights, or what is prepared of them.
export class Held {
    constructor(network, kind) {
        this.network = network;
        this.kind = kind;
        this.at = network._room(facts.structs[kind].bytes);
    }
    // A copy of all bytes: of a state, what `nnc state import` reads.
    get bytes() {
        const { buffer } = this.network.exports.memory;
        return new Uint8Array(buffer, this.place, facts.structs[this.kind].bytes).slice();
    }
    set bytes(given) {
        const wanted = facts.structs[this.kind].bytes;
        if (given.length !== wanted) throw new RangeError(`${this.kind} has ${wanted} bytes, got ${given.length}`);
        new Uint8Array(this.network.exports.memory.buffer, this.place, wanted).set(given);
    }
    // A copy of a field: a number, or a typed array; of several axes, in order.
    get(path) {
        const { at, dtype, count, scalar } = this._field(path);
        const found = new ARRAYS[dtype](this.network.exports.memory.buffer, this.place + at, count).slice();
        return scalar ? found[0] : found;
    }
    set(path, value) {
        const { at, dtype, count, scalar } = this._field(path);
        const to = new ARRAYS[dtype](this.network.exports.memory.buffer, this.place + at, count);
        if (scalar) to[0] = value;
        else if (value.length === count) to.set(value);
        else throw new RangeError(`${path} has ${count} numbers, got ${value.length}`);
    }
    get fields() {
        return Object.keys(facts.structs[this.kind].fields);
    }
    // Give the memory back: nothing can be done with this any more.
    free() {
        this.network._free(this);
    }
    get place() {
        if (this.at === null) throw new TypeError(`this ${this.kind} was freed`);
        return this.at;
    }
    _field(path) {
        const found = facts.structs[this.kind].fields[path];
        if (!found) throw new RangeError(`${this.kind} has no ${path}; it has ${this.fields.join(", ")}`);
        return found;
    }
}

export class Network {
    constructor(exports, relaxed) {
        this.exports = exports;
        this.relaxed = relaxed;
        this.top = exports.heap.value;
        this.spare = new Map(); // by bytes, places that were given back
        if (facts.trained) {
            this.trained = Object.create(Held.prototype);
            Object.assign(this.trained, { network: this, kind: "prepared", at: exports[facts.trained].value });
        }
    }
    // A state or weights from their bytes.
    hold(kind, bytes) {
        const held = new Held(this, kind);
        held.bytes = bytes;
        return held;
    }
    init({ seed = 42, steps = 1 } = {}) {
        const state = new Held(this, "state");
        this._call("init", { state }, { seed, steps }, {});
        return state;
    }
    prepare(from, numbers = {}, into = new Held(this, "prepared")) {
        this._call("prepare", { [from.kind]: from, prepared: into }, numbers, {});
        return into;
    }
    // The order in which `nnc train` takes n examples in an epoch.
    order(n, seed, epoch) {
        const [order, scratch] = this._places([4 * n, 8 * n + 7]);
        this._must(this.exports[`${facts.prefix}_order`](order, n, BigInt(seed), BigInt(epoch), scratch, 8 * n + 7));
        return new Uint32Array(this.exports.memory.buffer, order, n).slice();
    }
    _room(bytes) {
        const again = this.spare.get(bytes)?.pop();
        if (again !== undefined) return again;
        const at = (this.top + 15) & ~15;
        this.top = at + bytes;
        this._reach(this.top);
        return at;
    }
    _free(held) {
        const { bytes } = facts.structs[held.kind], at = held.place;
        if (held === this.trained) throw new TypeError("what was learned is part of the module");
        if (!this.spare.has(bytes)) this.spare.set(bytes, []);
        this.spare.get(bytes).push(at);
        held.at = null;
    }
    _reach(end) {
        const more = end - this.exports.memory.buffer.byteLength;
        if (more > 0) this.exports.memory.grow(Math.ceil(more / 65536));
    }
    // Places for a call, behind everything that is held.
    _places(sizes) {
        let end = this.top;
        const found = sizes.map((bytes) => {
            const at = (end + 15) & ~15;
            end = at + bytes;
            return at;
        });
        this._reach(end);
        return found;
    }
    _must(code) {
        if (!code) return;
        const memory = new Uint8Array(this.exports.memory.buffer);
        const at = this.exports[`${facts.prefix}_message`](code);
        const error = new Error(new TextDecoder().decode(memory.slice(at, memory.indexOf(0, at))));
        error.code = code;
        throw error;
    }
    // A function of the network: arrays and numbers by name in, results by name out. Sizes that no array says are
    // among `sizes`.
    _call(name, held, given, sizes) {
        const call = facts.calls[name];
        const known = sizesOf(name, call, given, { ...sizes });
        const arrays = call.parameters.filter((p) => p.shape);
        const counts = arrays.map((p) => p.shape.reduce((n, d) => n * d(known), 1));
        const bytes = arrays.map((p, k) => counts[k] * ARRAYS[p.dtype].BYTES_PER_ELEMENT);
        const metrics = facts.structs.metrics?.bytes ?? 0;
        const needed = call.scratch(known);
        const places = this._places([...bytes, metrics, needed]);
        const scratch = places.pop(), out = places.pop();
        const at = new Map(arrays.map((p, k) => [p, places[k]]));
        const { buffer } = this.exports.memory;
        const passed = call.parameters.map((p) => {
            if (p.held) {
                const h = held[p.held] ?? (p.held === "weights" && held.state);
                if (!h) throw new TypeError(`${name} wants ${p.held}`);
                return h.place + (h.kind === "state" && p.held === "weights" ? facts.structs.state.weights : 0);
            }
            if (p.metrics) return out;
            if (p.size) return known[p.size];
            if (!p.shape) {
                if (given[p.name] === undefined) throw new TypeError(`${name} wants ${p.name}`);
                return p.dtype === "i64" ? BigInt(given[p.name]) : Number(given[p.name]);
            }
            if (!p.output) new ARRAYS[p.dtype](buffer, at.get(p), given[p.name].length).set(given[p.name]);
            return at.get(p);
        });
        this._must(this.exports[`${facts.prefix}_${name}`](...passed, scratch, needed));
        const results = {};
        arrays.forEach((p, k) => {
            if (p.output) results[p.name] = new ARRAYS[p.dtype](buffer, at.get(p), counts[k]).slice();
        });
        if (call.parameters.some((p) => p.metrics))
            for (const [path, f] of Object.entries(facts.structs.metrics.fields))
                results[path] = new ARRAYS[f.dtype](buffer, out + f.at, 1)[0];
        return results;
    }
}

// The sizes that arrays say: one that is left open, where its array has so many rows of what is known.
function sizesOf(name, call, given, known) {
    for (const p of call.parameters) {
        if (!p.shape || p.output) continue;
        const array = given[p.name];
        if (!(array instanceof ARRAYS[p.dtype]))
            throw new TypeError(`${name} wants ${p.name} as ${ARRAYS[p.dtype].name}`);
        if (p.rows && known[p.rows] === undefined) {
            const row = p.shape.slice(1).reduce((n, d) => n * d(known), 1);
            if (Number.isInteger(array.length / row)) known[p.rows] = array.length / row;
        }
        const wanted = p.shape.reduce((n, d) => n * d(known), 1);
        if (wanted !== array.length)
            throw new RangeError(`${name} wants ${p.name} of ${p.type}, got ${array.length} numbers`);
    }
    for (const p of call.parameters)
        if (p.size && !Number.isInteger(known[p.size])) throw new TypeError(`${name} wants a size: { ${p.size}: .. }`);
    return known;
}

/*METHODS*/
