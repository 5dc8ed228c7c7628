"""What a hostile pod prints, and the cells of a notebook that show it by all that this library shows things with."""

from __future__ import annotations

MARKUP = "<img src=x onerror='window.hurt=1'><script>window.hurt=1</script><b id=hurt>bold</b>"
HURT = "#hurt, img[src='x']"
"""What of it stands in a page that takes it for markup."""
PRINTED = r"\x1b]52;c;ZXZpbA==\x07\x1b[2J" + MARKUP
CELLS = (
    "from gpurunbook import open_run, show\nfrom gpurunbook.stages import next_token\nrun = open_run('next_token')",
    f"""evil = {PRINTED!r}
program = f'import sys; print("{{evil}}"); sys.stderr.write("{{evil}}"); sys.exit("fail" in sys.argv)'
facts = next_token.observe(run)
def call(*more):
    return run.kubectl.exec(facts.pod.name, 'python', '-c', program, *more, container=facts.container, why=program)""",
    "run.plan([call()], program)",
    "said = run.ask(call()).stdout\nshow.show(show.Box(said, (said, said), 'warn', (said, said)))\nshow.Terminal(said, said)",
    "show.Table((said,), [[said]], said)",
    "run.ask(call('fail'))",
)
