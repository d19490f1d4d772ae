"""Where a model looked: capture, views, rollout, a test whether to believe it, and the page.

`capture` -> `views`, `rollout`, `faithfulness`, `units` (numbers of one input: `item`; of many: `whole`) ->
`draw`, `media`, `panel`, `believe`, `more`, `met` (parts of a page) -> `report` (one input),
`whole_report` (many), `demo_report` (one run). `pictures` and `raster` write the same views as files.
"""
