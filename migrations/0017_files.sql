-- When the process of a running import last said that it is at work. One that has not for some time was killed.
ALTER TABLE imports ADD COLUMN IF NOT EXISTS alive_at timestamptz;
