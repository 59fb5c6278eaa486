"""The text side: CLIP, T5 and language models turn prompts into what the denoising networks read.

Emphasis is applied as A1111 does: the embedding of each token is multiplied by its weight, and then the whole chunk
by one number that restores its mean. Texts of several chunks join the embeddings of their chunks; texts that are
used together are filled up with empty chunks to one length. T5 (t5_tower.py) and language models
(language_model_tower.py) know neither weights nor chunks.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from accelerate import cpu_offload, init_empty_weights
from diffusers.loaders.single_file_utils import (
    create_diffusers_clip_model_from_ldm,
    create_diffusers_t5_model_from_checkpoint,
)
from diffusers.utils.torch_utils import get_module_execution_device
from safetensors.torch import load_file
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5TokenizerFast,
)
from transformers.utils import logging as transformers_logging

from pipeline.errors import InputError, is_out_of_memory
from pipeline.networks.checkpoints import Checkpoint
from pipeline.networks.families import TextPart
from pipeline.networks.text.clip_tower import ClipTower
from pipeline.networks.text.conditioning import Conditioning
from pipeline.networks.text.language_model_tower import (
    MODELS,
    SEEING,
    LanguageModelTower,
    load_language_tokenizer,
)
from pipeline.networks.text.t5_tower import T5Tower
from pipeline.networks.weights.embedding_file import check_takes_embeddings, read_embedding
from pipeline.networks.weights.loaded_part import load_part
from pipeline.networks.weights.lora import fuse_texts
from pipeline.networks.weights.weight_files import check_complete, check_files
from pipeline.networks.weights.weight_places import fetching
from pipeline.prompting.chunks import Chunk
from pipeline.prompting.text_settings import TextSettings, check_clip_skip
from pipeline.study.main_lora import AddedLora

# Loading takes no time worth a bar, and a bar would be the only noise of a quiet stage.
transformers_logging.disable_progress_bar()

Key = TypeVar("Key")


Tower = ClipTower | T5Tower | LanguageModelTower


@dataclass(frozen=True)
class TextEncoder:
    """The text transformers of a checkpoint, and how they are read, which its family says.

    Each CLIP gives its last layer that is not skipped, through the final layer norm; with `penultimate` the layer
    before that, without the norm. Several lie side by side, T5's tokens after theirs, all as wide as the widest. The
    first chunk gives the pooled embeddings, where there are some, joined (diffusers' conventions). A language model is
    alone, is read at the same layer, and gives with its tokens which of them are the text's. `zero_empty`: an empty
    reference text reads as zeros, as SDXL was trained. `system` is written before prompts, and not before references,
    as Lumina2Pipeline does.
    """

    towers: tuple[Tower, ...]
    settings: TextSettings = field(default_factory=TextSettings)
    zero_empty: bool = False
    penultimate: bool = False
    system: str = ""

    def __post_init__(self) -> None:
        for tower in self.towers:
            if isinstance(tower, ClipTower) and tower.read:
                layers = int(tower.model.config.num_hidden_layers)
                check_clip_skip(self.settings.clip_skip, layers, int(self.penultimate))

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """What the networks are told of these texts: tokens [B, chunks * context, W]; any text can be read."""
        return self.encode_together({"texts": texts})["texts"]

    @torch.inference_mode()
    def encode_together(
        self, groups: Mapping[Key, Sequence[str]], references: Collection[object] = ()
    ) -> dict[Key, Conditioning]:
        """Several groups of texts for one call of a network: all get the number of chunks of the longest.

        `references` names the groups to move away from; only their empty texts can read as zeros.
        """
        told = self.addressed(groups, references)
        chunked = {key: [self.cut(text) for text in texts] for key, texts in told.items()}
        number = self.number(text for texts in chunked.values() for text in texts)
        return {
            key: self.zeroed(self.embed(chunked[key], number), texts, key in references)
            for key, texts in groups.items()
        }

    def addressed(
        self, groups: Mapping[Key, Sequence[str]], references: Collection[object] = ()
    ) -> dict[Key, list[str]]:
        """The texts as the encoders read them: `system` before prompts.

        A reference that is its image's own prompt has it as well: a prompt as its own negative changes nothing.
        """
        prompts = next((texts for key, texts in groups.items() if key not in references), ())
        found = {}
        for key, texts in groups.items():
            own = [key not in references or (k < len(prompts) and text == prompts[k]) for k, text in enumerate(texts)]
            found[key] = [self.system + text if is_own else text for text, is_own in zip(texts, own, strict=True)]
        return found

    def cut(self, text: str) -> list[list[Chunk]]:
        """The chunks of a text for each tower, without begin and end marks."""
        return [tower.chunks(text, self.settings) for tower in self.towers]

    def number(self, texts: Iterable[list[list[Chunk]]]) -> int:
        """The number of chunks of the longest of some cut texts, and no fewer than the settings ask for."""
        read = [isinstance(tower, ClipTower) and tower.read for tower in self.towers]
        if not any(read):
            return 1
        return max(
            [self.settings.chunks, *(len(own) for text in texts for own, r in zip(text, read, strict=True) if r)]
        )

    def zeroed(self, encoded: Conditioning, texts: Sequence[str], is_reference: bool) -> Conditioning:
        """`encoded` with zeros for the empty ones of its `texts`, where they are a reference and were trained so."""
        if not (self.zero_empty and is_reference):
            return encoded
        return encoded.zeroed([not text.strip() for text in texts])

    def embed(self, texts: list[list[list[Chunk]]], number: int) -> Conditioning:
        """Cut texts, each filled up with empty chunks to `number` of them."""
        side_by_side, after, pooled, told = [], [], [], {}
        for k, tower in enumerate(self.towers):
            if isinstance(tower, T5Tower):
                after.append(tower.embed([text[k][0] for text in texts]))
                if tower.masked:
                    told["read"] = tower.read([text[k][0] for text in texts])
                continue
            if isinstance(tower, LanguageModelTower):
                tokens, read = tower.embed([text[k][0] for text in texts], self.penultimate)
                after.append(tokens)
                if read is not None:
                    told["read"] = read
                continue
            chunks = number if tower.read else 1
            filled = [
                tower.padded(chunk) for text in texts for chunk in [*text[k], *[()] * (chunks - len(text[k]))][:chunks]
            ]
            tokens = torch.tensor([tokens for tokens, _ in filled], device=get_module_execution_device(tower.model))
            output = tower.model(tokens, output_hidden_states=self.settings.clip_skip > 0 or self.penultimate)
            # A1111's and sgm's choice: the first chunk speaks for the text.
            if isinstance(tower.model, CLIPTextModelWithProjection):
                pooled.append(output.text_embeds[::chunks])
            elif tower.pools_end:
                pooled.append(output.pooler_output[::chunks])
            if tower.read:
                embedding = weighted(
                    self._layer(tower, output), torch.tensor([w for _, w in filled]), self.settings.restore_mean
                )
                side_by_side.append(embedding.reshape(len(texts), number * tower.context, -1))
        parts = [_alone_or_joined(side_by_side, -1), *after] if side_by_side else after
        width = max(part.shape[-1] for part in parts)
        tokens = _alone_or_joined([F.pad(part, (0, width - part.shape[-1])) for part in parts], 1)
        if pooled:
            told["pooled"] = _alone_or_joined(pooled, -1)
        return Conditioning({"tokens": tokens, **told})

    def content(self, cut: list[list[Chunk]], length: int, marks: bool) -> torch.Tensor:
        """True [`length`] where an embedding is of a word of a cut text, or maybe of its marks, and not of padding."""
        row = torch.zeros(length, dtype=torch.bool)
        read = [k for k, tower in enumerate(self.towers) if isinstance(tower, ClipTower) and tower.read]
        for own, tower in zip(cut, self.towers, strict=True):
            if isinstance(tower, T5Tower):  # whose tokens are the last
                row[length - tower.length :][: len(own[0]) + marks] = True
            elif isinstance(tower, LanguageModelTower):
                assert marks, "pipeline/compatibility/texts.py refuses to degrade its words, which alone asks for them"
                row[tower.places(own[0])] = True
        for k in read[:1]:
            tower = self.towers[k]
            assert isinstance(tower, ClipTower)
            for place, chunk in enumerate(cut[k]):
                begin = place * tower.context
                row[begin + (not marks) : begin + 1 + len(chunk) + marks] = True
        return row

    def _layer(self, tower: ClipTower, output: Any) -> torch.Tensor:
        skip = self.settings.clip_skip
        layer: torch.Tensor
        if self.penultimate:
            layer = output.hidden_states[-(skip + 2)]
        elif skip == 0:
            layer = output.last_hidden_state
        else:
            # transformers 5 has the norm on the model itself, before it was in `text_model`.
            transformer = getattr(tower.model, "text_model", tower.model)
            layer = transformer.final_layer_norm(output.hidden_states[-(skip + 1)])
        return layer


def _alone_or_joined(tensors: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors), dim=axis)


def weighted(embedding: torch.Tensor, weights: torch.Tensor, restore_mean: bool) -> torch.Tensor:
    """Embeddings [B, L, W] with each token's multiplied by its weight [B, L], as A1111 does.

    `restore_mean` then multiplies every text by (mean before) / (mean after), over its tokens and channels alike.
    Weights of 1 change no bit.
    """
    result = embedding * weights.to(embedding)[..., None]
    if restore_mean:
        before, after = (x.float().mean(dim=(1, 2), keepdim=True) for x in (embedding, result))
        ratio = before / after
        result = result * torch.where(ratio.isfinite(), ratio, 1.0).to(result)
    return result


def load_text_encoder(
    source: Checkpoint | Path,
    device: torch.device,
    settings: TextSettings | None = None,
    dtype: torch.dtype = torch.float32,
    swapped: Checkpoint | None = None,
    weights: bool = True,
    loras: Sequence[AddedLora] = (),
    embeddings: Mapping[str, Path] | None = None,
    offload: bool = False,
) -> TextEncoder:
    """Load the text encoders of a checkpoint, those of its family, and their tokenizers.

    `swapped` is another checkpoint whose first text encoder replaces this one's (an improved CLIP-L). Without
    `weights` it cuts texts and cannot encode them. A family that reads CLIP has the layers of its CLIPs in `loras`
    added to them, and where it reads nothing else it knows `embeddings`, files by the names that texts call them by.
    With `offload` each layer is on the CPU until it is needed.
    Raises InputError for missing, pickled or damaged files, where the swapped encoder has another width, and for LoRAs
    and embeddings that do not fit.
    """
    checkpoint = source if isinstance(source, Checkpoint) else Checkpoint(source, source)
    family = checkpoint.family
    check_files(checkpoint, family.text_parts)
    first = swapped or checkpoint
    if swapped is not None:
        check_files(swapped, ("text_encoder",))
        widths = [(c.settings("text_encoder") or {}).get("hidden_size") for c in (checkpoint, swapped)]
        if widths[0] != widths[1]:
            raise InputError(
                f"the text encoder of {swapped.path} has width {widths[1]}, that of {checkpoint.path} {widths[0]}; "
                "only one of the same width can take its place"
            )
    settings = settings or TextSettings()
    try:
        towers = tuple(
            _load_tower(
                first if text.part == "text_encoder" else checkpoint, text, dtype, device, settings, weights, offload
            )
            for text in family.texts
        )
    except InputError:
        raise
    except Exception as error:  # transformers and safetensors raise many kinds for a damaged folder
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{checkpoint.path} cannot be loaded ({reason}); {fetching(checkpoint.path)}") from None
    clips = [tower for tower in towers if isinstance(tower, ClipTower)]
    if family.reads_clip and weights:
        for lora in loras:
            fuse_texts([tower.model for tower in towers], lora)
    if embeddings:
        towers = _learning(clips, embeddings, checkpoint)
    if offload and weights:  # last: weights that are moved away take no LoRA and no embedding
        for tower in towers:
            cpu_offload(tower.model, execution_device=device)
    # SDXL's pipelines read this from model_index.json; where there is none (single files), SDXL's own value counts.
    zero_empty = family.zero_empty and bool(checkpoint.index.get("force_zeros_for_empty_prompt", True))
    system = "".join(text.system for text in family.texts)
    return TextEncoder(towers, settings, zero_empty, family.penultimate, system)


def _learning(clips: Sequence[ClipTower], files: Mapping[str, Path], checkpoint: Checkpoint) -> tuple[ClipTower, ...]:
    """CLIPs that know embeddings by name, each its own vectors of every file."""
    check_takes_embeddings(checkpoint, files)
    widths, most = [tower.width for tower in clips], min(tower.context for tower in clips) - 2
    vectors = {name: read_embedding(path, widths, most) for name, path in files.items()}
    return tuple(tower.learning({name: own[k] for name, own in vectors.items()}) for k, tower in enumerate(clips))


def _load_tower(
    checkpoint: Checkpoint,
    text: TextPart,
    dtype: torch.dtype,
    device: torch.device,
    settings: TextSettings,
    weights: bool,
    offload: bool,
) -> Tower:
    kind: Any = CLIPTextModelWithProjection if text.pooled == "projection" else CLIPTextModel
    create: Any = create_diffusers_clip_model_from_ldm
    if text.kind == "t5":
        kind, create = T5EncoderModel, create_diffusers_t5_model_from_checkpoint
    elif text.is_language_model:
        kind = MODELS[text.kind]
    part = text.part
    if not weights:
        with init_empty_weights():
            model = kind(kind.config_class.from_pretrained(checkpoint.config / part, local_files_only=True))
    elif checkpoint.in_file(part):
        tensors = load_file(checkpoint.path)
        model = create(
            kind,
            tensors,
            subfolder=part,
            config=str(checkpoint.config),
            torch_dtype=dtype,
            local_files_only=True,
        )
        if text.kind == "t5":  # whose files have its embeddings of tokens once
            model.set_input_embeddings(model.shared)
        check_complete(model, (), checkpoint.path)
    else:
        model = load_part(kind, checkpoint, part, dtype)
    if text.kind in SEEING:  # which see no images here and write no words
        model = model.model.language_model
    if weights:
        model = model.eval().requires_grad_(False)
        model = model if offload else model.to(device)
    if text.is_language_model:
        tokenizer = load_language_tokenizer(checkpoint.config, text)
        return LanguageModelTower(model, tokenizer, text)
    folder = checkpoint.config / part.replace("text_encoder", "tokenizer")
    if text.kind == "t5":
        length = settings.t5_length or text.length
        return T5Tower(model, T5TokenizerFast.from_pretrained(folder, local_files_only=True), length, text.masked)
    return ClipTower(
        model, CLIPTokenizer.from_pretrained(folder, local_files_only=True), text.pooled == "end", text.tokens
    )
