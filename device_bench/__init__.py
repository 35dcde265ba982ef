"""Measurements on devices and the report on them: bundle + device → rows → one page."""
