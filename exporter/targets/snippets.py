"""What the snippets of several targets share, one part for each language: ids, weights, the cases of example.json.

Names stand in the code as they are: `Calling.is_plain` was asked before.
"""

from collections.abc import Iterable, Sequence
from textwrap import dedent, indent

from exporter.core.calling import EXAMPLE, ITEMS, Argument, Calling

_PYTHON_ITEMS = f"""
# The row of each raw id: padding, an empty id, is row 0, and an id that is not in the catalogue gets row -1.
signs = {{"t": "\\t", "n": "\\n", "r": "\\r"}}
lines = (folder / "{ITEMS}").read_bytes().decode().split("\\n")[1:-1]
ids = [re.sub(r"\\\\(.)", lambda found: signs.get(found[1], found[1]), line.split("\\t")[1]) for line in lines]
row_of = {{"": 0, **{{raw: row for row, raw in enumerate(ids, start=1)}}}}


def rows(raw_ids):
    return [[row_of.get(raw, -1) for raw in one] for one in raw_ids]

"""

_PYTHON_IDS = """
def ids_of(rows):
    return [[ids[row - 1] for row in one] for one in rows]

"""

_JAVASCRIPT_ITEMS = f"""
// The row of each raw id: padding, an empty id, is row 0, and an id that is not in the catalogue gets row -1.
const signs = {{ t: "\\t", n: "\\n", r: "\\r" }};
const lines = (await (await read("{ITEMS}")).text()).split("\\n").slice(1, -1);
const ids = lines.map((line) => line.split("\\t")[1].replace(/\\\\(.)/g, (_, sign) => signs[sign] ?? sign));
const rowOf = new Map([["", 0], ...ids.map((raw, index) => [raw, index + 1])]);
const rows = (rawIds) => rawIds.map((raw) => rowOf.get(raw) ?? -1);
"""

_JAVASCRIPT_IDS = "const idsOf = (rows) => rows.map((row) => ids[row - 1]);"

_JAVASCRIPT_WEIGHTS = """
// A weights package is a safetensors file: the length of a JSON header, the header, and the numbers. Those in int8 are
// in steps of the scale of their row.
const packed = (await bytes("{package}")).buffer;
const start = 8 + Number(new DataView(packed).getBigUint64(0, true));
const header = JSON.parse(new TextDecoder().decode(packed.slice(8, start)));
const part = (name) => packed.slice(...header[name].data_offsets.map((at) => start + at));
const weights = (name) => {
  if (header[name].dtype === "F32") return new Float32Array(part(name));
  const [steps, scales] = [new Int8Array(part(name)), new Float32Array(part(`${name}.scale`))];
  const width = steps.length / scales.length;
  return Float32Array.from(steps, (step, at) => step * scales[Math.floor(at / width)]);
};
"""

_KOTLIN_ROWS = {
    False: """
/** Fits rows of the item table, oldest first, to an input: the latest ones, filled up with 0 on the right. */
fun fit(rows: List<Int>, size: Int) = IntArray(size) { rows.takeLast(size).getOrElse(it) { 0 } }
""",
    True: """
/** The row of each raw id in items.tsv. */
fun readItems(file: File): Map<String, Int> {
    val signs = mapOf("t" to "\\t", "n" to "\\n", "r" to "\\r")
    val lines = file.readText().split("\\n").drop(1).dropLast(1)
    val escape = Regex("\\\\\\\\(.)")
    val ids = lines.map { line ->
        escape.replace(line.split("\\t")[1]) { found -> signs[found.groupValues[1]] ?: found.groupValues[1] }
    }
    return ids.withIndex().associate { (index, id) -> id to index + 1 }
}

/** Raw ids, oldest first, as rows for an input: the latest ones, -1 for unknown ids, filled up with 0 on the right. */
fun fit(ids: List<String>, items: Map<String, Int>, size: Int): IntArray {
    val rows = ids.takeLast(size).map { items[it] ?: -1 }
    return IntArray(size) { rows.getOrElse(it) { 0 } }
}
""",
}

_KOTLIN_IDS = """
/** The raw ids of rows that came out; `items` is what readItems gives. */
fun idsOf(rows: IntArray, items: Map<String, Int>): List<String> {
    val ids = items.entries.associate { it.value to it.key }
    return rows.map { ids.getValue(it) }
}
"""

KOTLIN_WEIGHTS = """
/** Reads a weights package: a safetensors file. Numbers in int8 are in steps of the scale of their row. */
fun readWeights(file: File): Map<String, FloatArray> {
    val bytes = ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN)
    val start = 8 + bytes.getLong(0).toInt()
    val header = JSONObject(String(bytes.array(), 8, start - 8, Charsets.UTF_8))
    fun range(name: String): Pair<Int, Int> {
        val range = header.getJSONObject(name).getJSONArray("data_offsets")
        return start + range.getInt(0) to start + range.getInt(1)
    }
    fun floats(name: String): FloatArray {
        val (from, to) = range(name)
        return FloatArray((to - from) / 4) { bytes.getFloat(from + 4 * it) }
    }
    val names = header.keys().asSequence().filter { it != "__metadata__" && !it.endsWith(".scale") }
    return names.associateWith { name ->
        if (header.getJSONObject(name).getString("dtype") == "F32") {
            floats(name)
        } else {
            val (from, to) = range(name)
            val scales = floats("$name.scale")
            val width = (to - from) / scales.size
            FloatArray(to - from) { bytes.get(from + it) * scales[it / width] }
        }
    }
}
"""

_SWIFT_ROWS = {
    False: """
/// Fits rows of the item table, oldest first, to an input: the latest ones, filled up with 0 on the right.
func fit(_ rows: [Int32], _ size: Int) -> [Int32] {
    let latest = Array(rows.suffix(size))
    return latest + [Int32](repeating: 0, count: size - latest.count)
}
""",
    True: """
/// The row of each raw id in items.tsv.
func readItems(_ file: URL) throws -> [String: Int32] {
    let signs: [Character: Character] = ["t": "\\t", "n": "\\n", "r": "\\r"]
    let lines = try String(contentsOf: file, encoding: .utf8).components(separatedBy: "\\n").dropFirst().dropLast()
    var rows: [String: Int32] = [:]
    for (index, line) in lines.enumerated() {
        var id = ""
        var escaped = false
        for sign in line.components(separatedBy: "\\t")[1] {
            if escaped {
                id.append(signs[sign] ?? sign)
                escaped = false
            } else if sign == "\\\\" {
                escaped = true
            } else {
                id.append(sign)
            }
        }
        rows[id] = Int32(index + 1)
    }
    return rows
}

/// Raw ids, oldest first, as rows for an input: the latest ones, -1 for unknown ids, filled up with 0 on the right.
func fit(_ ids: [String], _ items: [String: Int32], _ size: Int) -> [Int32] {
    let latest = ids.suffix(size).map { items[$0] ?? -1 }
    return latest + [Int32](repeating: 0, count: size - latest.count)
}
""",
}

_SWIFT_IDS = """
/// The raw ids of rows that came out; `items` is what readItems gives.
func idsOf(_ rows: [Int32], _ items: [String: Int32]) -> [String] {
    let ids = Dictionary(uniqueKeysWithValues: items.map { ($0.value, $0.key) })
    return rows.map { ids[$0, default: ""] }
}
"""

SWIFT_WEIGHTS = """
/// Reads a weights package: a safetensors file. Numbers in int8 are in steps of the scale of their row.
func readWeights(_ file: URL) throws -> [String: [Float]] {
    let data = try Data(contentsOf: file)
    let start = 8 + data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let header = try JSONSerialization.jsonObject(with: data.subdata(in: 8..<start)) as! [String: [String: Any]]
    func part(_ name: String) -> Data {
        let range = header[name]!["data_offsets"] as! [Int]
        return data.subdata(in: (start + range[0])..<(start + range[1]))
    }
    func floats(_ name: String) -> [Float] {
        return part(name).withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
    }
    var weights: [String: [Float]] = [:]
    for (name, entry) in header where name != "__metadata__" && !name.hasSuffix(".scale") {
        if entry["dtype"] as! String == "F32" {
            weights[name] = floats(name)
        } else {
            let steps = part(name).map { Int8(bitPattern: $0) }
            let scales = floats("\\(name).scale")
            let width = steps.count / scales.count
            weights[name] = steps.indices.map { Float(steps[$0]) * scales[$0 / width] }
        }
    }
    return weights
}
"""


def python(call: Calling, imports: Iterable[str], load: str) -> str:
    """Return a script that computes the cases of example.json with `run`, which `load` defines, and prints them."""
    raw, giving = call.raw_ids and _holds_items(call), _giving_ids(call)
    needed = ["import json", *(["import re"] if raw else []), "from pathlib import Path", "", "import numpy as np"]
    needed += [*imports, *(["from safetensors.numpy import load_file"] if call.weights else [])]
    lines = [
        f"# {call.title}: save this beside {call.model_file}; it prints what comes out for {EXAMPLE}.",
        *needed,
        "",
    ]
    lines += ["folder = Path(__file__).resolve().parent", *dedent(load).strip("\n").split("\n"), "", ""]
    if raw:
        lines += [*_PYTHON_ITEMS.strip("\n").split("\n"), "", ""]
    if giving:
        lines += [*_PYTHON_IDS.strip("\n").split("\n"), "", ""]
    if call.weights:
        lines += [
            f'packed = load_file(folder / "{call.package}")  # for another user, read another package',
            'names = [name for name in packed if not name.endswith(".scale")]  # int8 is in steps of a row\'s scale',
            'weights = {name: packed[name] * packed.get(f"{name}.scale", np.float32(1)) for name in names}',
        ]
    lines += [f'for case in json.loads((folder / "{EXAMPLE}").read_text())["cases"]:', "    inputs = {"]
    for argument in call.inputs:
        given = f'case["inputs"]["{argument.name}"]'
        given = f"rows({given})" if raw and argument.holds_items else given
        lines.append(f'        "{argument.name}": np.array({given}, np.{argument.dtype}),  # {list(argument.shape)}')
    lines += ["        **weights,", "    }"] if call.weights else ["    }"]
    lines += ["    outputs = run(inputs)"]
    for output, taken in call.state.items():
        lines.append(f'    # with the next call: inputs["{taken}"] = outputs["{output}"]; zeros before the first')
    lines += ["    shown = {name: array.tolist() for name, array in outputs.items()}"]
    lines += [f'    shown["{name}"] = ids_of(shown["{name}"])' for name in giving]
    lines += ["    print(json.dumps(shown))"]
    return "\n".join(lines) + "\n"


def javascript(call: Calling, imports: Iterable[str], load: str) -> str:
    """Return a module that computes the cases of example.json with `run`, which `load` defines, and prints them.

    `load` also defines `tensor(values, shape)` for an Int32Array or a Float32Array.
    """
    raw, giving = call.raw_ids and _holds_items(call), _giving_ids(call)
    lines = [f"// {call.title}: a module beside {call.model_file}; it prints what comes out for {EXAMPLE}.", *imports]
    lines += ["", "const read = (name) => fetch(new URL(name, import.meta.url));"]
    lines += ["const bytes = async (name) => new Uint8Array(await (await read(name)).arrayBuffer());"]
    lines += dedent(load).strip("\n").split("\n")
    if raw:
        lines += _JAVASCRIPT_ITEMS.rstrip("\n").split("\n")
    if giving:
        lines.append(_JAVASCRIPT_IDS)
    if call.weights:
        lines += _JAVASCRIPT_WEIGHTS.replace("{package}", str(call.package)).rstrip("\n").split("\n")
    lines += [
        "",
        f'const example = await (await read("{EXAMPLE}")).json();',
        "for (const { inputs } of example.cases) {",
    ]
    lines += ["  const outputs = await run({"]
    for argument in call.inputs:
        given = f"inputs.{argument.name}.flat(Infinity)"
        given = f"rows({given})" if raw and argument.holds_items else given
        kind = "Int32Array" if argument.dtype == "int32" else "Float32Array"
        lines.append(f"    {argument.name}: tensor({kind}.from({given}), {list(argument.shape)}),")
    lines += [f'    {one.name}: tensor(weights("{one.name}"), {list(one.shape)}),' for one in call.weights]
    lines += ["  });"]
    for output, taken in call.state.items():
        lines.append(f"  // with the next call: inputs.{taken} is outputs.{output}; zeros before the first")
    lines += [f"  outputs.{name} = idsOf(outputs.{name});" for name in giving]
    lines += ["  console.log(JSON.stringify(outputs));", "}"]
    return "\n".join(lines) + "\n"


def kotlin(call: Calling, imports: Iterable[str], body: str, shared: str = "") -> str:
    """Return a file with the class that `body` has, its Outputs, and functions for ids."""
    fields = ", ".join(f"val {one.identifier}: {_kotlin_type(one)}" for one in call.outputs)
    rows = _KOTLIN_ROWS[call.raw_ids] if _holds_items(call) else ""
    rows += _KOTLIN_IDS if _giving_ids(call) else ""
    outputs = f"/** {_shapes(call.outputs)} */\nclass Outputs({fields})\n"
    return "\n".join(sorted(imports)) + "\n\n" + outputs + "\n" + dedent(body).strip("\n") + "\n" + rows + shared


def kotlin_parameters(call: Calling) -> str:
    """Return the parameters of `run`."""
    return ", ".join(f"{one.identifier}: {_kotlin_type(one)}" for one in call.inputs)


def swift(call: Calling, imports: Iterable[str], body: str, shared: str = "") -> str:
    """Return a file with the class that `body` has, its Outputs, and functions for ids."""
    fields = "\n".join(f"    let {one.identifier}: [{swift_type(one)}]  // {list(one.shape)}" for one in call.outputs)
    rows = _SWIFT_ROWS[call.raw_ids] if _holds_items(call) else ""
    rows += _SWIFT_IDS if _giving_ids(call) else ""
    outputs = f"struct Outputs {{\n{fields}\n}}\n"
    return "\n".join(imports) + "\n\n" + outputs + "\n" + dedent(body).strip("\n") + "\n" + rows + shared


def swift_parameters(call: Calling) -> str:
    """Return the parameters of `run`."""
    return ", ".join(f"{one.identifier}: [{swift_type(one)}]" for one in call.inputs)


def swift_type(argument: Argument) -> str:
    """Return the type of its numbers."""
    return "Int32" if argument.dtype == "int32" else "Float"


def signature(call: Calling) -> str:
    """Return what goes in and what comes out, with shapes, and what a state needs, as one line of a comment."""
    carried = "".join(
        f"; {taken} is {output} of the call before, zeros at first" for output, taken in call.state.items()
    )
    return f"{_shapes(call.inputs)} -> {_shapes(call.outputs)}{carried}"


def each(arguments: Sequence[Argument], form: str, spaces: int) -> str:
    """Return `form` for each argument on a line of its own: {name}, {identifier}, {shape}, {count}, {at}."""
    lines = [
        form.format(
            name=one.name,
            identifier=one.identifier,
            shape=", ".join(map(str, one.shape)),
            count=one.count,
            at=position,
        )
        for position, one in enumerate(arguments)
    ]
    return indent("\n".join(lines), " " * spaces).lstrip()


def _holds_items(call: Calling) -> bool:
    """Say whether rows of the item table go in or come out."""
    return any(argument.holds_items for argument in (*call.inputs, *call.outputs))


def _giving_ids(call: Calling) -> list[str]:
    """Return the outputs whose rows the code can turn into raw ids."""
    return [argument.name for argument in call.outputs if call.raw_ids and argument.holds_items]


def _kotlin_type(argument: Argument) -> str:
    return "IntArray" if argument.dtype == "int32" else "FloatArray"


def _shapes(arguments: Iterable[Argument]) -> str:
    return ", ".join(f"{one.identifier} {list(one.shape)}" for one in arguments)
