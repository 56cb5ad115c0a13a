"""Reference sets: the format on disk, sampling a set in resumable blocks, and conversion from and to image archives.

Training reads them through `RefsetFakes`; how samples are drawn from a network belongs to a generator.
"""
