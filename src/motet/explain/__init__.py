"""Where a model looked: capture, views, rollout, a test whether to believe it, and the page.

`capture` -> `views`, `rollout`, `faithfulness` (numbers) -> `charts`, `media` (pictures of them) ->
`report` (one input), `demo_report` (one run).
"""
