"""The nodes' help pages, as ComfyUI serves them."""

import re
import urllib.request

import pytest
from graphs import ROOT

PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))


def fetch(comfy, name):
    with urllib.request.urlopen(f"http://{comfy.address}/extensions/unianimate/docs/{name}") as answer:
        return answer.read()


def test_every_pose_node_has_a_page(comfy):
    pose = {name for name, node in comfy.object_info().items() if node["category"].startswith("UniAnimate/pose")}
    assert pose <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_served_with_its_pictures_and_names_the_nodes_inputs(comfy, page):
    text = fetch(comfy, page.name).decode()
    node = comfy.object_info(page.stem)
    assert text.startswith(f"# {node['display_name']}\n")
    for picture in re.findall(r"!\[.+?\]\((.+?)\)", text):
        assert fetch(comfy, picture).startswith(b"\x89PNG")
    rows = re.findall(r"^\| ([a-z_, ]+) \|", text, flags=re.MULTILINE)
    named = {name for row in rows for name in row.split(", ")}
    inputs = {name for part in ("required", "optional") for name in node["input"].get(part, {})}
    assert named <= inputs | set(node["output_name"]), named
