"""Texts that a model may write and that must stay text."""

HOSTILE = (
    "<script>document.title='pwned'</script>",
    "</textarea></pre></script></style><img src=x onerror=\"document.title='pwned'\">",
    '" onmouseover="document.title=\'pwned\'" x="',
    "' autofocus onfocus='document.title=1",
    "<svg onload=document.title='pwned'><details open ontoggle=document.title='pwned'>",
    "<base href=//evil><meta http-equiv=refresh content=0;url=//evil>\ud800\x00",
    "<iframe srcdoc=\"<script>parent.document.title='pwned'</script>\"></iframe><link rel=stylesheet href=//evil/a.css>",
    "<meta http-equiv=Content-Security-Policy content=\"script-src 'unsafe-inline'\"><a href=\"javascript:document.title='pwned'\">x</a>",
    "\u202eright to left\u2066 isolate \x1b[2J\x07 \u2028 &lt;b&gt; ]]> <!-- --!> \ufeff",
)
