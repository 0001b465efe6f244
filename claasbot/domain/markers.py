"""Text of people that a tokenizer would take for a mark of its own, and how it stays text.

Chat templates mark turns with tokens such as `<|im_start|>`. Written by a person they would be tokenised as the real
thing and open a turn in somebody else's name, whatever the model family: a host may serve any.
"""

from __future__ import annotations

import re

_WORDS = (
    "s|think|thought|thinking|bos|eos|pad|unk|mask|sep|cls|sop|eop|eoa|eoh|eod|eot|eom|sys|inst|ai|tool|tools|function"
    "|functions|reponame|filename|image|img|audio|video|box|quad|ref|unused\\d+|reserved\\d+|用户"
)
_IN_BRACKETS = (
    "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS?|TOOL_RESULTS?|TOOL_CONTENT|ARGS|CALL_ID|IMG|IMG_BREAK|IMG_END|AUDIO"
    "|BEGIN_AUDIO|TRANSCRIBE|PREFIX|SUFFIX|MIDDLE|THINK|MODEL_SETTINGS|control_\\d+|[gs]?MASK|CLS|SEP|PAD|UNK|BOS|EOS|EOT"
    "|unused\\d+"
)
_FALCON = "TITLE|ABSTRACT|INTRODUCTION|SUMMARY|COMMENT|ANSWER|QUESTION|DOMAIN|PREFIX|SUFFIX|MIDDLE"
_MARKER = re.compile(
    "|".join(
        (
            r"<(?=\|[^|<>\s]{1,60}\|?>)",  # ChatML, Llama 3 and 4, Phi, gpt-oss: <|im_start|>
            r"<(?=[^|<>\s]{1,60}\|>)",  # Gemma 4: <turn|>
            r"<(?=\u0022?\uff5c[^<>\uff5c]{1,60}\uff5c>)",  # DeepSeek: <｜User｜>
            r"<(?=/?[A-Za-z]{1,30}(?:_[A-Za-z0-9]{1,30}){1,6}>)",  # Gemma, StarCoder: <end_of_turn>; no HTML has a _
            rf"<(?=/?(?i:{_WORDS})>)",  # Llama 2, reasoning models, Yi, InternLM: <s>, </think>
            rf"\[(?=/?(?:{_IN_BRACKETS})\])",  # Mistral, GLM, BERT: [INST]
            rf">>(?=(?:{_FALCON})<<)",
        )
    )
)


def plain(text: str) -> str:
    """`text` with every such mark broken by a space, so that it is no single token any more.

    `<|im_end|>` becomes `< |im_end|>`: as readable as before.
    """
    return _MARKER.sub(lambda begins: f"{begins[0]} ", text)
