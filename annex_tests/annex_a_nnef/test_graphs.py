"""Graphs: the variables that are seen without a parser, and what they are for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc_adapters.nnef import dat, syntax
from nnc_core.errors import ModelError

nnef = pytest.importorskip("nnef", reason="the package nnef is not installed")

START = "version 1.0;\ngraph g(x) -> (y) { x = external<scalar>(shape = [1, 8]); "
BLANK = st.sampled_from(["", " ", "\n", "\t ", " # a comment with 'quotes' and variable(\n"])
LABEL = st.text(st.characters(exclude_characters="'\"\0", exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_variables_are_seen_as_the_package_nnef_sees_them(data):
    text = START
    for number in range(data.draw(st.integers(0, 3))):
        label, quote = data.draw(LABEL), data.draw(st.sampled_from("'\""))
        shape = data.draw(st.lists(st.integers(0, 99), max_size=4))
        arguments = [("shape", f"[{','.join(map(str, shape))}]"), ("label", f"{quote}{label}{number}{quote}")]
        blank = [data.draw(BLANK) for _ in range(8)]
        if data.draw(st.booleans()):
            arguments.reverse()
        named = [f"{blank[0]}{name}{blank[1]}={blank[7]}{value}" for name, value in arguments]
        kind = data.draw(st.sampled_from(["", "<scalar>", " < integer >"]))
        text += f"v{number}{blank[2]}={blank[3]}variable{kind}{blank[4]}({blank[5]}{','.join(named)}{blank[6]});"
    text += " y = copy(x); }"
    operations = nnef.parse_string(text).operations
    expected = {o.attribs["label"]: tuple(o.attribs["shape"]) for o in operations if o.name == "variable"}
    assert syntax.variables(text.encode()) == expected


@pytest.mark.parametrize(
    "statement",
    [
        "y = x + variable<scalar>(shape = [4], label = 'w');",
        "[a, b] = [variable(shape = [1], label = 'f'), variable(shape = [1], label = 'g')]; y = copy(x);",
        "variable = copy(x); y = copy(variable);",
    ],
)
def test_variables_are_seen_wherever_they_stand(statement):
    text = START.replace(";", "; extension KHR_enable_operator_expressions;", 1) + statement + "}"
    operations = nnef.parse_string(text).operations
    found = syntax.variables(text.encode())
    assert list(found) == [o.attribs["label"] for o in operations if o.name == "variable"]


def test_fragments_of_their_own_are_allowed(adapter, make, floats):
    text = """version 1.0;
    extension KHR_enable_fragment_definitions;
    extension KHR_enable_operator_expressions;
    fragment twice(x: tensor<scalar>, n: integer) -> (y: tensor<scalar>) { y = reshape(x + x, shape = [1] * n); }
    graph g(x) -> (y) {
        x = external<scalar>(shape = [1, 8]); w = variable(shape = [1, 8], label = 'w'); y = twice(x + w, n = 2); }"""
    folder = make({"w": floats(1, 8)}, files={"graph.nnef": text.encode()})
    assert list(adapter.read(folder).tensors) == ["w"]


BODIES = {
    "conv(x, v0, v1)": {"w": "conv.weight", "b": "conv.bias"},
    "deconv(x, v0, v1)": {"w": "conv.weight", "b": "conv.bias"},
    "linear(x, v0, v1)": {"w": "fc.weight", "b": "fc.bias"},
    "matmul(x, v0)": {"w": "fc.weight"},
    "batch_normalization(x, v0, v1, v2, v3, epsilon = 0.1)": {
        "w": "bn.mean",
        "b": "bn.var",
        "c": "bn.beta",
        "d": "bn.gamma",
    },
    "max(x, v0)": {"w": "unspecified"},
    "softmax_of_mine(x, v0)": {},
}


@pytest.mark.parametrize("body", BODIES)
def test_roles_follow_from_the_operations(adapter, make, floats, body):
    folder = make({label: floats(4, 8) for label in "wbcd"}, body=f"y = {body};")
    assert adapter.read(folder).model_info["parameter_type"] == BODIES[body]


def test_roles_are_found_behind_a_transposition_and_left_open_where_they_differ(adapter, make, floats):
    body = "t = transpose(v0, axes = [1, 0]); z = matmul(x, t); u = add(x, v1); y = linear(z, filter = v1, bias = v2);"
    folder = make({label: floats(8, 8) for label in "wvb"}, body=body)
    assert adapter.read(folder).model_info["parameter_type"] == {"w": "fc.weight", "b": "fc.bias"}


@pytest.mark.parametrize(
    "body", ["clamp(x, v0, v1)", "pow(x, v0)", "copy(x); z = update(v0, x)", "copy(x); z = lt(x, v0)"]
)
def test_arguments_of_operations_are_exact(adapter, make, floats, body):
    model = adapter.read(make({"a": floats(4, 8), "b": floats(4, 8)}, body=f"y = {body};"))
    assert "a" in model.exact


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("w = variable(shape = [2], label = 'w);", "no end"),
        ("a = variable(shape = [2], label = 'w'); b = variable(shape = [3], label = 'w');", "'w'.*declared"),
        ("z = copy((x);", "closes what is not open"),
        ("}", "closes what is not open"),
        ("z = {", "is missing"),
    ],
)
def test_a_graph_that_makes_no_sense_is_refused(adapter, make, statement, message):
    with pytest.raises(ModelError, match=message):
        adapter.read(make({}, body=f"{statement} y = copy(x);"))


@pytest.mark.parametrize(
    "statement",
    [
        "w = variable(shape = [2]);",
        "w = variable(label = 'w');",
        "w = variable(shape = [-1], label = 'w');",
        "w = variable(shape = [2*2], label = 'w');",
        "w = variable(shape = [S, 2], label = 'w');",
        "w = variable(shape = [99999999999], label = 'w');",
        "w = variable(shape = [2], label = name);",
        "z = unknown(x);",
        "z = what is this;",
    ],
)
def test_what_is_not_understood_is_carried(adapter, make, floats, statement):
    header, array = floats(2)
    data = header.pack() + bytes(dat.dump(header, array))
    model = adapter.read(make({}, body=f"{statement} y = copy(x);", files={"w.dat": data}))
    assert not model.tensors
    assert statement.encode() in model.topology.data
    assert data in model.topology.private


def test_shapes_of_the_graph_and_of_the_file_must_agree(adapter, make, floats):
    folder = make({"w": floats(4, 5)})
    text = (folder / "graph.nnef").read_text()
    (folder / "graph.nnef").write_text(text.replace("[4, 5]", "[5, 4]"))
    with pytest.raises(ModelError, match=r"'w'.*\[4, 5\].*\[5, 4\]"):
        adapter.read(folder)
