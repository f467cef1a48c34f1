"""UniAnimate for ComfyUI: a picture and a motion go in, a video of that person doing that motion comes out."""

WEB_DIRECTORY = "./web"  # the nodes' help pages

if __package__:  # absent where a tool imports this file by itself
    from comfy_api.latest import ComfyExtension

    from .nodes import NODES
    from .nodes.loaders import register_folders

    class UniAnimateExtension(ComfyExtension):
        """The pack."""

        async def on_load(self) -> None:
            """Make the small model known to the loaders."""
            register_folders()

        async def get_node_list(self) -> list:
            """All nodes."""
            return NODES

    async def comfy_entrypoint() -> UniAnimateExtension:
        """Called by ComfyUI when it loads the pack."""
        return UniAnimateExtension()
