"""The tests, a package: an old Ultralytics installs one of the same name."""
