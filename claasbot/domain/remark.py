"""Is a message a remark about the answer before it? Conservative, and readable on purpose.

Asked what was wrong, people answer in any words: there what does not open as another request counts too.

A remark teaches by itself, so a wrong yes is worse than a wrong no: only messages that open with words
that people use about answers, and that are short, count. Everything else is talk; /feedback always works.
Refuses to guess at moods.
"""

from __future__ import annotations

import re

_MAX_WORDS = 25

_REMARK = re.compile(
    r"""^\W*(?:
      (?:(?:no|nope|well|hm+|ok(?:ay)?|thanks|sorry)[,.!]?\s+(?:but\s+)?)?
      (?:
        (?:that|this|it|your\s+(?:answer|reply))(?:['’]?s|\s+is|\s+was)?\s+
            (?:(?:just|really|way|far|much|still|a\s+bit|a\s+little)\s+)*
            (?:too\s+(?!bad\b|late\b|early\b|far\b)\w+|wrong|not\s+(?:right|correct|true|what\s+i)|incorrect|unclear|confusing|boring|rude|
               hard\s+to\s+read|off\s+topic)
      | (?:(?:just|really|way|far|much|still|a\s+bit|a\s+little)\s+)*too\s+
            (?:long|short|much|complicated|formal|vague|technical|wordy|verbose|simple|many\s+words)
      | (?:please\s+)?(?:be|write|keep\s+(?:it|your\s+answers?)|make\s+(?:it|your\s+answers?)|answer)\s+
            (?:(?:a\s+(?:bit|little)|much|more|less)\s+)*
            (?:short|shorter|brief|briefer|concise|longer|simpler|simple|friendlier|formal|informal|polite|detailed?|
               specific|careful|verbose|wordy|kind|kinder)\b
      | (?:please\s+)?(?:stop|don['’]?t|do\s+not|never|always)\s+
            (?:using|use|saying|say|repeating|repeat|answering|answer|writing|write|being|be|calling|call|adding|add|
               start|starting|end|ending|apologi[sz]ing|apologi[sz]e)\b
      | (?:please\s+)?(?:answer|reply|respond)\s+(?:me\s+)?(?:in|with|using|only)\b
      | (?:shorter|longer|simpler|less\s+\w+|more\s+(?:detail|details|examples?))(?:\s+(?:answers?|replies))?
            (?:,?\s*please)?\s*[.!]*$
      | (?:wrong|incorrect)(?:\W|$)
      | not\s+what\s+i\s+(?:asked|meant|wanted)
      | you\s+(?:misunderstood|didn['’]?t\s+answer|did\s+not\s+answer|got\s+(?:it|that)\s+wrong)
      )
    )""",
    re.IGNORECASE | re.VERBOSE,
)

_NEW_REQUEST = re.compile(
    r"""^\W*(?:(?:please|ok(?:ay)?|now|and|then|so|hi|hello|hey)[,.!]?\s+)*(?:
      what|who|whom|whose|when|where|which|why|how|can|could|would|will|do|does|did|is|are|was|were|should|may
      | tell|give|show|name|list|explain|describe|translate|summari[sz]e|compare|calculate|make\s+(?:me|a|an)
      | write(?!\s+(?:less|more|fewer)\b)
      | hi|hello|hey|thanks|thank
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""How talk about something else begins."""


def is_remark(text: str) -> bool:
    """True when the message says something about the answer rather than going on with the talk."""
    words = text.split()
    return 0 < len(words) <= _MAX_WORDS and "?" not in text and _REMARK.match(text) is not None


def is_reason(text: str) -> bool:
    """True when the message may answer “What was wrong?”: short, and neither a question nor another request."""
    n_words = len(text.split())
    if is_remark(text):
        return True
    return 0 < n_words <= _MAX_WORDS and "?" not in text and _NEW_REQUEST.match(text) is None
