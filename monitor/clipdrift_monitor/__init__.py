"""Finds drift and harm, relates them to clipping, says what is wrong, decides, and has repairs made and put into service.

Rooms in the order of the data: intake (events in) -> windows (sums) -> detectors, risk (statements) -> clipping, diagnosis
(why) -> decisions (what to do) -> actions, rollout (doing it); store and api beside them.
"""
