"""An agent that answers with the model, for ADK's API server."""

from google.adk.agents import LlmAgent
from google.adk.models.lite_llm import LiteLlm

# OPENAI_BASE_URL and OPENAI_API_KEY are taken from the environment.
root_agent = LlmAgent(name="chat", model=LiteLlm(model="openai/gpt-3.5-turbo"), instruction="")
