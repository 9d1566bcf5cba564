-- Placeholder: the migration of owners takes this number.
SELECT 1;
