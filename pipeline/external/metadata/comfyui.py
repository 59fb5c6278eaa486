"""The graph that ComfyUI writes into its images: nodes by id, each with inputs that are values or links [id, output].

The text `prompt` holds the graph that was run; `workflow`, the drawing of it, is not read. Nothing is executed: links
are followed from the sampler to the texts, the seed and the checkpoint. Nodes of extensions are read as far as their
inputs are called as those of ComfyUI's own.
"""

from collections.abc import Iterator
from typing import Any

from pipeline.external.metadata.record import Metadata, Unreadable, number, text, whole_number

Inputs = dict[str, Any]

# Inputs that hold a text or a link to one; the first are what a wildcard node has made of its text.
_FILLED = ("populated_text", "wildcard_text")
_TEXTS = (
    "text",
    "text_g",
    "text_l",
    "clip_l",
    "t5xxl",
    "prompt",
    "string",
    "value",
    "string_a",
    "string_b",
    "text_a",
    "text_b",
)
_SEEDS = ("seed", "noise_seed")
_MODELS = ("ckpt_name", "unet_name", "model_name")
# What leads from an image back to the sampler that has made it.
_BACK = ("images", "image", "pixels", "samples", "latent_image", "latent")
_MOST_NODES = 10_000
# More links than this are not followed from one place: a graph can have cycles, or be someone's joke.
_MOST_STEPS = 2_000


def read_comfyui(graph: dict[str, Any]) -> Metadata:
    """The settings of the sampler that made the image: of several in a row, of the first. Raises Unreadable."""
    if len(graph) > _MOST_NODES:
        raise Unreadable(f"its ComfyUI graph has {len(graph)} nodes; at most {_MOST_NODES} are read")
    nodes = _Nodes(graph)
    found = nodes.first_sampler()
    if found is None:
        raise Unreadable("its ComfyUI graph has no sampler with a positive text that can be followed")
    sampler = nodes.inputs(found)
    guider = nodes.behind(sampler.get("guider"))
    # A sampler of parts has its texts and its scale in a guider, and its seed, steps and solver in nodes beside it.
    texts = guider or sampler
    positive = texts.get("positive", texts.get("conditioning"))
    sigmas = nodes.behind(sampler.get("sigmas"))
    solver = sampler.get("sampler_name") or nodes.behind(sampler.get("sampler")).get("sampler_name")
    scheduler = sampler.get("scheduler") or sigmas.get("scheduler")
    seed = next((sampler[key] for key in _SEEDS if key in sampler), None)
    if seed is None:
        noise = nodes.behind(sampler.get("noise"))
        seed = next((noise[key] for key in _SEEDS if key in noise), None)
    return Metadata(
        tool="ComfyUI",
        prompt=text(nodes.text_of(positive, "positive")),
        negative=text(nodes.text_of(texts.get("negative"), "negative")),
        seed=whole_number(nodes.value_of(seed)),
        sampler=" ".join(part for part in map(text, map(nodes.value_of, (solver, scheduler))) if part),
        steps=whole_number(nodes.value_of(sampler.get("steps", sigmas.get("steps"))), 100_000),
        scale=number(nodes.value_of(texts.get("cfg", sampler.get("cfg")))),
        model=text(nodes.model_of(texts.get("model", sampler.get("model", sigmas.get("model"))))),
    )


class _Nodes:
    """The nodes of a graph; whatever is malformed in it leads nowhere."""

    def __init__(self, graph: dict[str, Any]):
        self._nodes = {
            key: node for key, node in graph.items() if isinstance(node, dict) and isinstance(node.get("inputs"), dict)
        }

    def inputs(self, key: str) -> Inputs:
        found: Inputs = self._nodes[key]["inputs"]
        return found

    def _kind(self, key: str) -> str:
        return str(self._nodes[key].get("class_type", ""))

    def link(self, value: Any) -> str | None:
        """The node that a value links to; None where it is not a link."""
        if isinstance(value, list) and len(value) == 2 and str(value[0]) in self._nodes:
            return str(value[0])
        return None

    def behind(self, value: Any) -> Inputs:
        """The inputs of the node that a value links to; empty where it is not a link."""
        key = self.link(value)
        return {} if key is None else self.inputs(key)

    def first_sampler(self) -> str | None:
        """The sampler that the image began with: one that no other sampler's latents lead into.

        Where there are several, the one nearest to the end of the graph.
        """
        samplers = dict.fromkeys(key for key in self._nodes if self._samples(key))
        begin = dict.fromkeys(key for key in samplers if not any(one in samplers for one in self._upstream(key)))
        if len(begin) < 2:
            return next(iter(begin or samplers), None)
        led_to = {self.link(value) for node in self._nodes.values() for value in node["inputs"].values()}
        ends = [key for key in self._nodes if key not in led_to]
        return next((key for end in ends for key in self._upstream(end) if key in begin), next(iter(begin)))

    def _samples(self, key: str) -> bool:
        own = self.inputs(key)
        if "guider" in own:
            return True
        return (
            "positive" in own and any(name in own for name in (*_SEEDS, "noise")) and "samp" in self._kind(key).lower()
        )

    def _upstream(self, key: str) -> Iterator[str]:
        """The nodes that lead into one by images and latents, nearest first."""
        seen, waiting = {key}, [key]
        while waiting and len(seen) < _MOST_STEPS:
            own = self.inputs(waiting.pop(0))
            for name in _BACK:
                found = self.link(own.get(name))
                if found is not None and found not in seen:
                    seen.add(found)
                    waiting.append(found)
                    yield found

    def value_of(self, value: Any) -> Any:
        """A value, or that of the node that it links to, through nodes of one value."""
        for _ in range(_MOST_STEPS):
            key = self.link(value)
            if key is None:
                return value
            own = self.inputs(key)
            value = next((own[name] for name in (*_SEEDS, "value", "int", "float", "number") if name in own), None)
        return None

    def model_of(self, value: Any) -> Any:
        """The file of the checkpoint that a link leads to, through LoRAs and what else changes a model."""
        for _ in range(_MOST_STEPS):
            key = self.link(value)
            if key is None:
                return None
            own = self.inputs(key)
            if name := next((own[name] for name in _MODELS if isinstance(own.get(name), str)), None):
                return name
            value = own.get("model")
        return None

    def text_of(self, value: Any, role: str) -> str:
        """The text that a conditioning is made of; parts of several with commas between them."""
        found: list[str] = []
        seen: set[str] = set()
        # Last in, first out, so that parts stand in the order of the inputs.
        waiting = [(value, role)]
        while waiting and len(seen) < _MOST_STEPS:
            one, asked = waiting.pop()
            key = self.link(one)
            if key is None:
                if isinstance(one, str) and one.strip():
                    found.append(one.strip())
                continue
            if key in seen or self._kind(key) == "ConditioningZeroOut":
                continue
            seen.add(key)
            waiting += reversed([(part, asked) for part in self._parts(self.inputs(key), one[1], asked)])
        return ", ".join(dict.fromkeys(found))

    def _parts(self, own: Inputs, output: Any, asked: str) -> list[Any]:
        if "positive" in own and "negative" in own:
            # Nodes that change both, as ControlNet's, give the positive one first.
            return [own["positive" if output == 0 else "negative" if output == 1 else asked]]
        for names in (_FILLED, _TEXTS):
            if texts := [own[name] for name in names if isinstance(own.get(name), str | list)]:
                return texts
        return [part for name, part in own.items() if name.startswith("conditioning")]
