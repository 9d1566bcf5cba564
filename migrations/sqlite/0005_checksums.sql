-- additive
-- A checksum over the columns of a row that never change, so that an audit finds a
-- changed amount that no line repeats: the limit of a sub-budget, and what was held
-- for a charge. See metering/checksum.go. NULL: the row is of a version before.
ALTER TABLE budgets ADD COLUMN checksum INTEGER;
ALTER TABLE charges ADD COLUMN checksum INTEGER;
