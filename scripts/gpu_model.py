"""A GGUF file as a bf16 checkpoint folder with tokenizer and chat template: `python gpu_model.py FILE.gguf FOLDER`. Needs the package gguf.

The weights keep the error of their quantisation. A GGUF that holds the embedding matrix twice may have the first copy blanked
(`blank_twin`); the head then serves as both, as in the original.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HEAD, EMBEDDING = "output.weight", "token_embd.weight"


def blank_twin(file: Path) -> bool:
    """Overwrite the embedding of a GGUF with zeros, which compress to nothing, if the head is the same matrix in finer quantisation."""
    import numpy as np
    from gguf import GGUFReader, dequantize

    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    if HEAD not in tensors:
        return False
    head, embedding = (dequantize(tensors[name].data, tensors[name].tensor_type) for name in (HEAD, EMBEDDING))
    if tensors[HEAD].n_bytes < tensors[EMBEDDING].n_bytes or np.linalg.norm(head - embedding) > 0.1 * np.linalg.norm(head):
        return False
    with file.open("r+b") as stream:
        stream.seek(tensors[EMBEDDING].data_offset)
        stream.write(bytes(int(tensors[EMBEDDING].n_bytes)))
    return True


def dequantise(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.bfloat16)
    config, weights = quantised.config, quantised.state_dict()
    del config.quantization_config  # transformers would refuse to write it
    if not weights["model.embed_tokens.weight"].any():
        weights["model.embed_tokens.weight"] = weights["lm_head.weight"]
        config.tie_word_embeddings = True
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(weights)
    model.tie_weights()
    model.generation_config = quantised.generation_config
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # transformers takes the first token of the file's list for the end of the text; the file says which it is.
    tokenizer.eos_token, tokenizer.pad_token = tokenizer.convert_ids_to_tokens([config.eos_token_id, config.pad_token_id])
    part = folder.with_name(folder.name + ".part")  # one that was killed leaves no folder that looks whole
    tokenizer.save_pretrained(part)
    model.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


if __name__ == "__main__":
    dequantise(Path(sys.argv[1]), Path(sys.argv[2]))
