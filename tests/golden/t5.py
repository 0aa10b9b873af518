"""Two small random T5 encoders and what `transformers` makes of them, for `src/model/spotdiff/t5`: writes t5/.

Usage: python3 tests/golden/t5.py      (needs torch, transformers, sentencepiece; written with transformers 5.23.0)
"""

import json
import random
from pathlib import Path

import sentencepiece
import torch
from transformers import T5Config, T5EncoderModel, T5Tokenizer

HERE = Path(__file__).parent / "t5"
TEXTS = [
    "A spatial spot. Highly expressed genes: eve 2.31, ftz 1.75. Lowly expressed genes: Kr 0.10.",
    "Ance",
    " ".join(["Highly expressed genes: bowl 1.20, E(spl)m5-HLH 0.98,"] * 12),
]


def tokenizer():
    words = "a spatial spot highly expressed genes lowly eve ftz kr ance bowl hlh 1 2 3 0.5 1.75 . : ,".split()
    rng = random.Random(1)
    corpus = HERE / "corpus.txt"
    lines = [" ".join(rng.choice(words) for _ in range(12)) for _ in range(300)] + TEXTS
    corpus.write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(HERE / "spiece"), vocab_size=72, model_type="unigram",
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )
    corpus.unlink()
    (HERE / "spiece.vocab").unlink()
    return HERE / "spiece.model"


def main():
    HERE.mkdir(exist_ok=True)
    model_file = tokenizer()
    reference = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    ids = [(reference.encode(text) + [1])[:128] for text in TEXTS]
    fast = T5Tokenizer.from_pretrained(str(HERE), extra_ids=0)
    fast_ids = [fast(text, truncation=True, max_length=128).input_ids for text in TEXTS]
    print("sentencepiece and transformers agree:", [a == b for a, b in zip(ids, fast_ids)])
    out = {"texts": TEXTS, "ids": fast_ids, "encoded": {}}
    for name, act in [("v1_0", "relu"), ("v1_1", "gated-gelu")]:
        torch.manual_seed(3)
        config = T5Config(
            vocab_size=80, d_model=12, d_kv=5, d_ff=20, num_layers=2, num_heads=3, feed_forward_proj=act,
            tie_word_embeddings=act == "relu",
        )
        model = T5EncoderModel(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # all of the size at which every part is heard
                parameter.copy_(torch.randn_like(parameter) * 0.3 + (1.0 if parameter.ndim == 1 else 0.0))
        folder = HERE / name
        model.save_pretrained(folder)
        encoded = []
        for row in fast_ids:
            with torch.no_grad():
                state = model(input_ids=torch.tensor([row])).last_hidden_state[0]
            encoded.append([state[0].tolist(), state[-1].tolist(), state.mean(0).tolist()])
        out["encoded"][name] = encoded
        for extra in ("generation_config.json",):
            (folder / extra).unlink(missing_ok=True)
    (HERE / "expected.json").write_text(json.dumps(out))
    for extra in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        (HERE / extra).unlink(missing_ok=True)


main()
