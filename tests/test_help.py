"""The nodes' help pages, as ComfyUI serves them."""

import re
import urllib.request

import pytest
from graphs import ROOT

PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))
TABLES = ("Input", "Output")


def fetch(comfy, name):
    with urllib.request.urlopen(f"http://{comfy.address}/extensions/unianimate/docs/{name}") as answer:
        return answer.read()


def listed(page):
    """The names in the first column of a page's table of inputs, and of its table of outputs."""
    names = {table: set() for table in TABLES}
    table = None
    for line in page.splitlines():
        if not line.startswith("|"):
            table = None
            continue
        first = line.split("|")[1].strip(" *`")
        if table is None:
            table = first
        elif table in names and not first.startswith("---"):
            names[table].update(re.split(r"[*`]*, [*`]*", first))
    return names


def shown(node):
    """The names of a node's inputs and of its outputs, as its widgets and sockets show them."""
    inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
    names = {spec[1].get("display_name") or name if len(spec) > 1 else name for name, spec in inputs.items()}
    return {"Input": names, "Output": set(node["output_name"])}


def test_every_pose_node_has_a_page(comfy):
    pose = {name for name, node in comfy.object_info().items() if node["category"].startswith("UniAnimate/pose")}
    assert pose <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_served_with_its_pictures_and_names_every_input_and_output(comfy, page):
    text = fetch(comfy, page.name).decode()
    node = comfy.object_info(page.stem)
    assert text.startswith(f"# {node['display_name']}\n")
    for picture in re.findall(r"!\[.+?\]\((.+?)\)", text):
        assert fetch(comfy, picture).startswith(b"\x89PNG")
    assert listed(text) == shown(node)
