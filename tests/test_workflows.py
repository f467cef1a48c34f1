"""Every workflow that the pack ships, run in a real ComfyUI."""

import json

import numpy as np
import pytest
from graphs import ROOT

from unianimate_core.video import read_video

ANIMATE = ("UniAnimateConditioning", "UniAnimateLongVideo")
MOST_FRAMES = 20  # of a long video: two segments or windows
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))


@pytest.mark.parametrize("file", sorted((ROOT / "workflows" / "api").glob("*.json")), ids=lambda file: file.stem)
def test_every_workflow_makes_its_video(comfy, file):
    prompt = json.loads(file.read_text(encoding="utf-8"))
    video = next(node["inputs"] for node in prompt.values() if node["class_type"] in ANIMATE)
    video["length"] = min(video["length"], MOST_FRAMES)
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 3
    run = comfy.queue(prompt)
    (file,) = (path for path in comfy.output_files(run) if path.suffix == ".mp4")
    pictures, fps = read_video(file)
    assert pictures.shape == (video["length"], video["height"], video["width"], 3)
    assert fps == 30
    assert pictures.std() > 1, "a plain picture"
    assert np.abs(np.diff(pictures.astype(int), axis=0)).mean() > 0.1, "nothing moves"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_workflow_in_ui_format_is_the_one_in_api_format(comfy, file):
    info = comfy.object_info()
    workflow = json.loads(file.read_text(encoding="utf-8"))
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        specs = {**info[node["type"]]["input"].get("required", {}), **info[node["type"]]["input"].get("optional", {})}
        values = iter(node["widgets_values"])
        inputs = {}
        for entry in node["inputs"]:
            if "widget" in entry:
                inputs[entry["name"]] = next(values)
                options = (specs[entry["name"]] + [{}])[1]
                if {"control_after_generate", "image_upload", "video_upload"} & {
                    name for name in options if options[name]
                }:
                    next(values)  # widgets that the page adds of its own
            if entry["link"] is not None:
                inputs[entry["name"]] = links[entry["link"]]
        assert next(values, None) is None
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    api = json.loads((file.parent / "api" / file.name).read_text(encoding="utf-8"))
    assert prompt.keys() == api.keys()
    for node_id, node in api.items():
        assert prompt[node_id]["class_type"] == node["class_type"]
        # The page writes out every widget of this version; the API format only those that are not left to the host.
        assert prompt[node_id]["inputs"] | node["inputs"] == prompt[node_id]["inputs"], node_id


def test_the_template_browser_offers_every_workflow_with_its_thumbnail(comfy):
    """ComfyUI serves one folder of a pack as templates: one more with a name that it knows would hide these."""
    ours = {file.stem for file in WORKFLOWS}
    assert set(comfy.get("/api/workflow_templates")["unianimate"]) == ours
    for name in ours:
        assert "nodes" in comfy.get(f"/api/workflow_templates/unianimate/{name}.json")
        assert (ROOT / "workflows" / f"{name}.jpg").is_file()
