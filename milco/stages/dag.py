"""The rule graph as an SVG, drawn without Graphviz.

Run by `make dag`:  snakemake --rulegraph dot all | python -m milco.stages dag --output dag.svg
"""

import re
from pathlib import Path

import matplotlib
import networkx as nx

from milco.errors import MilcoError
from milco.files import finished_file

matplotlib.use("svg")
from matplotlib import pyplot as plt

NODE = re.compile(r'(\d+)\[label = "([^"\\]+)')
EDGE = re.compile(r"(\d+) -> (\d+)")


def draw(dot: str, output: Path) -> None:
    """Draw what `snakemake --rulegraph` or `--dag` printed, from the first rules on the left to `all`.

    Raises:
        MilcoError: there is no graph in the text.
    """
    graph = nx.DiGraph()
    names = dict(NODE.findall(dot))
    graph.add_nodes_from(names)
    graph.add_edges_from(EDGE.findall(dot))
    if not names:
        raise MilcoError("no graph on the standard input; run `make dag`")
    graph = nx.transitive_reduction(graph)
    for layer, nodes in enumerate(nx.topological_generations(graph)):
        for node in nodes:
            graph.nodes[node]["layer"] = layer
    positions = nx.multipartite_layout(graph, subset_key="layer")
    layers = 1 + max(data["layer"] for _, data in graph.nodes(data=True))
    figure, axis = plt.subplots(figsize=(1.5 * layers, 5), layout="constrained")
    nx.draw_networkx_edges(graph, positions, ax=axis, edge_color="#9aa5b1", node_size=2600, arrowsize=9)
    for node, (x, y) in positions.items():
        box = {"boxstyle": "round,pad=0.4", "facecolor": "#eef4fc", "edgecolor": "#3b7dd8"}
        axis.text(x, y, names[node], ha="center", va="center", fontsize=9, bbox=box)
    axis.set_axis_off()
    axis.margins(0.08)
    with finished_file(output) as draft:
        figure.savefig(draft, format="svg")
    plt.close(figure)
