"""What boto3 stands on: its errors alone."""
