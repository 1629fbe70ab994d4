"""The evidence pack of an alarm: an Evidently report of its window, made in a process of its own and never in the monitor's.

`order` says what to report on, `starter` runs the processes; `make`, `rows`, `page` and `pack` are at work in
that process only.
"""
