"""A compiled training step reads every weight before it changes it, or the other way about."""

import contextlib

import keras
import pytest
import tensorflow as tf

import tfbio
from tests.cases import ONE_OF_A_KIND, RULES, long_but, random
from tfbio import _keras, optimizers
from tfbio.training import sums


def optimized_graph(function, *arguments):
    """Return the nodes of the largest graph that TensorFlow executes for a compiled function."""
    graphs = _keras.collect_graphs(function, *arguments)
    return {node.name: node for node in max(graphs, key=lambda graph: len(graph.node)).node}


def source(edge):
    return edge.lstrip("^").split(":")[0]


def before(nodes, name):
    """Return the names of all nodes that one waits for."""
    found, queue = set(), [name]
    while queue:
        new = {source(edge) for edge in nodes[queue.pop()].input} - found
        found |= new
        queue += new
    return found


def unordered(nodes):
    """Return pairs of a reading and a change of one variable, neither of which waits."""
    reads = [n for n in nodes.values() if n.op == "ReadVariableOp"]
    writes = [n for n in nodes.values() if n.op.startswith("Assign")]
    assert reads
    assert writes
    found = []
    for write in writes:
        earlier = before(nodes, write.name)
        for read in reads:
            if source(read.input[0]) != source(write.input[0]) or read.name in earlier:
                continue
            if write.name not in before(nodes, read.name):
                found.append((read.name, write.name))
    return found


def network(rule):
    dense = [keras.layers.Dense(6, activation="relu", name=name) for name in "abc"]
    model = keras.Sequential([keras.Input((8,)), *dense, keras.layers.Dense(3, name="out")])
    return tfbio.convert(model, rule)


@pytest.mark.parametrize(
    ("rule", "sums_in_order"),
    long_but(
        [(rule, True) for rule in (*ONE_OF_A_KIND, "sdtp")],
        [(rule, sums_in_order) for rule in RULES for sums_in_order in (False, True)],
    ),
)
def test_no_reading_of_a_weight_races_with_its_update(rule, sums_in_order):
    """TensorFlow's graph optimizer drops control edges for the sake of paths that it then cuts."""
    model = network(rule)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizers.get("sgd", 0.1, momentum=0.9), loss, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    x, y = random((4, 8), "float32"), tf.constant([0, 1, 2, 0])
    _keras.build_symbolically(model, (x, y))
    step = tf.function(lambda x, y: model.train_step((x, y)))
    with sums.in_order() if sums_in_order else contextlib.nullcontext():
        assert unordered(optimized_graph(step, x, y)) == []
